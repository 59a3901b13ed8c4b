"""The values and counts that all rooms of the runtime share. Does nothing by itself.

Owns the shapes; each room fills them in.

================  ==========================================================================================
``plan``          the settings of a run, and the logs that follow from them
``batch``         messages in columns on their way through the pipeline, and where each came from
``state_keys``    the names under which states of instances are stored
``packing``       a payload as bytes that no later change reaches, or as text
``sampling``      which messages are followed through the flow, for the inspector
``samples``       followed messages as they came into a processor and as they left it
``metrics``       counters, rates and latencies, per batch
``stats``         a frozen snapshot of all counters
``stats_tables``  the mappings in a snapshot, which show themselves as tables
``history``       the main numbers of an hour, for plots
``logs``          what processors print and log
================  ==========================================================================================
"""
