"""Devices as the edge sees them: credit, presence, and the orders that each device has yet to run.

A hello arrives in ``hellos``; an order waits in ``order_queues``.

================  ==========================================================================================
``roster``        every device that a run knows
``hellos``        hellos as they arrive: of each device no more than the edge has time for
``presence``      which devices are connected: what hellos say, and the server's answer
``announcer``     asks all devices to say hello
``signals``       sends credit frames and other signals, the newest of each subject
``credit``        how many messages each device may send: who is granted messages, and when
``account``       what was granted to one device, what has come, and the device's own pace
``turns``         the order in which devices are asked
``budget``        how often a device's word may make work that concerns others
``rate_limit``    the limit of the rate at which messages are asked for
``pull``          the cloud's requests for readings
``backward``      orders and replies: from the log, through `backward` of the processors
``order_check``   which entries of the order log pass, and which are refused
``order_queues``  the orders of each device, until the device has run them
``foreign``       orders for devices that speak MQTT or plain NATS
================  ==========================================================================================
"""
