"""Devices as the edge sees them: how many messages each may send, whether it is there, and the orders it has yet to run.

A hello arrives in ``presence``; an order waits in ``order_queues``.

================  ==========================================================================================
``presence``      which devices are there
``credit``        how many messages each device may send
``pull``          the cloud's requests for readings
``backward``      orders and replies: from the log, through `backward` of the processors
``order_queues``  the orders of each device, until it has run them
``foreign``       orders for devices that speak MQTT or plain NATS
================  ==========================================================================================
"""
