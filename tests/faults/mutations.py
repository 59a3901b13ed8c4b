"""The mutations of `make mutants`: each switches off one mechanism that a promise rests on.

A mutation is a piece of text in a file of the package, the text in its place, and the tests that have to see
the difference. The text has to be there once: a mutation whose text is gone is mended with the code that it
was in.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MUTATIONS", "Mutation"]


@dataclass(frozen=True)
class Mutation:
    """A mechanism that is switched off.

    Attributes
    ----------
    name
        What is switched off, in words.
    file
        The file, below the package's folder.
    before, after
        The text that is taken out, and the text that stands there instead.
    tests
        What has to fail: tests of pytest, or a hunt with its options, which begins with ``hunt``.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


CHAIN = "tests/runtime/positions/test_chain.py"
GATEKEEPER = "tests/runtime/positions/test_gatekeeper.py"
HUNT_EDGES = "hunt --rounds 3 --seed 41 --faults kill --targets edge1,edge2,server --longest 0.5"

MUTATIONS = (
    Mutation(
        "input acknowledged before its output is stored",
        "runtime/positions/gatekeeper.py",
        "        self.in_flight.taken += count\n",
        "        self.in_flight.taken += count\n        self.input.acknowledge(delivery)\n",
        ("tests/runtime/positions/test_gatekeeper.py", HUNT_EDGES),
    ),
    Mutation(
        "no position check: repeats are admitted",
        "runtime/positions/positions.py",
        "skip=min(count, max(0, last - first + 1))",
        "skip=0",
        (GATEKEEPER, CHAIN, "tests/runtime/positions/test_positions.py"),
    ),
    Mutation(
        "no fence: an edge that was replaced goes on storing",
        "runtime/positions/chain.py",
        "self.last = await self._connection.append(self._out, data, expect=self.last)",
        "self.last = await self._connection.append(self._out, data)",
        (CHAIN,),
    ),
    Mutation(
        "no chain: results are stored without the positions that they complete",
        "runtime/positions/chain.py",
        "return encode(OutputFrame(self.writer, self._number, covers, segments))",
        "return encode(OutputFrame(self.writer, self._number, [], segments))",
        (CHAIN,),
    ),
    Mutation(
        "an append whose answer is lost is not looked up",
        "runtime/positions/chain.py",
        '        return "ours"\n',
        '        return "nothing"\n',
        (CHAIN,),
    ),
    Mutation(
        "a checkpoint without positions",
        "runtime/positions/chain.py",
        "MarkFrame(sequence, self.positions.all(), self.states,",
        "MarkFrame(sequence, [], self.states,",
        (CHAIN,),
    ),
    Mutation(
        "state restored from nowhere",
        "runtime/positions/chain.py",
        "self.states, self.floor = mark.states, mark.floor",
        "self.floor = mark.floor",
        (CHAIN,),
    ),
    Mutation(
        "state is not rebuilt from the messages since its checkpoint",
        "runtime/positions/rebuilding.py",
        "for place, number in behind.items()",
        "for place, number in ()",
        ("tests/runtime/edge/test_exact_state.py",),
    ),
    Mutation(
        "a partition is taken over with the checkpoint as it was before",
        "runtime/positions/chain.py",
        "                await self._store_checkpoint()\n                return\n",
        "                await self._store_checkpoint()\n                return\n"
        "            newest = await self._marks.latest(self._mark)\n"
        "            self._marked = newest.sequence if newest else 0\n"
        "            await self._store_checkpoint()\n            return\n",
        (CHAIN,),
    ),
    Mutation(
        "the input is purged before a checkpoint covers it",
        "runtime/edge/upkeep.py",
        "        if self._keeps_state():\n            # What is acknowledged by now",
        "        await self._input.purge(progress.floor)\n"
        "        if self._keeps_state():\n            # What is acknowledged by now",
        ("tests/runtime/edge/test_exact_state.py",),
    ),
    Mutation(
        "no rewind after a gap",
        "runtime/positions/gatekeeper.py",
        "if self.durable and not self.succession.whole_up_to(frame.delivery) and rewound < _REWINDS:",
        "if False:",
        (GATEKEEPER,),
    ),
    Mutation(
        "a delivery that is missing is not missed",
        "runtime/positions/inputs.py",
        "elif delivery.number not in (self._last, self._last + 1):",
        "elif False:",
        (GATEKEEPER,),
    ),
    Mutation(
        "no rewind after a reconnect",
        "transport/nats_consumer.py",
        'self._begin(self._rewind_until_done(), f"rewind {self._stream}")',
        "self._paused = False",
        ("tests/transport/test_contract.py",),
    ),
    Mutation(
        "no hold: frames in work are not held at the server",
        "runtime/positions/inputs.py",
        "self._consumer.hold(list(self._held.values()))",
        "pass",
        ("tests/runtime/positions/test_inputs.py",),
    ),
    Mutation(
        "epochs are forgotten lowest first",
        "runtime/positions/positions.py",
        "for epoch, number in islice(epochs.items(), len(epochs) - self._limit)",
        "for epoch, number in islice(sorted(epochs.items()), len(epochs) - self._limit)",
        ("tests/runtime/positions/test_positions.py", CHAIN),
    ),
    Mutation(
        "the janitor ignores what readers have yet to read",
        "runtime/positions/janitor.py",
        "below = min(cut, floor, state.last - min(_KEPT, state.messages // 2))",
        "below = min(cut, state.last - min(_KEPT, state.messages // 2))",
        ("tests/runtime/positions/test_janitor.py",),
    ),
    Mutation(
        "a retried dead letter is not remembered",
        "runtime/positions/dead_letters.py",
        "covers=(_place(sequence), 0, at),",
        "covers=(_place(sequence), 0, 0),",
        ("tests/runtime/positions/test_dead_letters.py",),
    ),
    Mutation(
        "a processor's replies are not sent",
        "runtime/positions/outputs.py",
        "        if replies:\n            await self._send_replies(replies)\n",
        "",
        ("tests/runtime/positions/test_outputs.py",),
    ),
    Mutation(
        "take returns before its position is stored",
        "cloud/reader.py",
        "await source.save(position, max(0.0, min(end - loop.time(), _LONG)))",
        "pass",
        ("tests/cloud/test_reader.py",),
    ),
    Mutation(
        "a cancelled take does not put its position back",
        "cloud/reader.py",
        "            except asyncio.CancelledError:\n                await self._put_back()\n",
        "            except asyncio.CancelledError:\n",
        ("tests/cloud/test_cancelled_take.py",),
    ),
    Mutation(
        "the outbox forgets messages before their receipt",
        "device/uplink.py",
        "                await (self._hand_over(link, frame) if fast else self._store(link, frame))\n"
        "            self._outbox.confirm(parcel)\n",
        "                self._outbox.confirm(parcel)\n"
        "                await (self._hand_over(link, frame) if fast else self._store(link, frame))\n",
        ("tests/device/test_client.py",),
    ),
    Mutation(
        "a message is not tried again when the server is silent",
        "device/uplink.py",
        '                log.debug("device %s: %s; trying again", self._device, error)\n',
        "                return\n",
        ("tests/device/test_client.py",),
    ),
    Mutation(
        "an order is forgotten before the device has confirmed it",
        "runtime/devices/order_queues.py",
        "            pending.sent = now\n",
        "            self._take_out(device, queue, pending.frame.number)\n",
        ("tests/runtime/devices/test_order_queues.py",),
    ),
    Mutation(
        # A repeat in the same epoch is known by its number and by its id: either alone would do.
        "a device runs orders again that come in another epoch",
        "device/downlink.py",
        "            if frame.id not in self._done:\n",
        "            if True:\n",
        ("tests/device/test_downlink.py",),
    ),
    Mutation(
        "the server takes clients without a valid certificate",
        "server/config.py",
        '"verify_and_map": True',
        '"verify": False',
        ("tests/server/test_embedded.py", "tests/transport/test_tls.py"),
    ),
    Mutation(
        "clients take any server's certificate",
        "transport/tls.py",
        "    context.minimum_version = ssl.TLSVersion.TLSv1_2\n",
        "    context.minimum_version = ssl.TLSVersion.TLSv1_2\n"
        "    context.check_hostname = False\n    context.verify_mode = ssl.CERT_NONE\n",
        ("tests/transport/test_tls.py",),
    ),
    Mutation(
        "malformed frames of one device fill the dead letters",
        "runtime/positions/letter_shares.py",
        "        return own + size <= (self._bound * _MALFORMED - others) * _PART\n",
        "        return True\n",
        ("tests/runtime/positions/test_letter_shares.py",),
    ),
    Mutation(
        "one device whose messages fail uses up the room of all",
        "runtime/positions/letter_shares.py",
        "return self._total >= self._room and not self._by_a_few",
        "return self._total >= self._room",
        ("tests/runtime/positions/test_letter_shares.py",),
    ),
    Mutation(
        "what is no frame fences the owner of the output",
        "runtime/positions/chain.py",
        'if isinstance(error, Fenced) and found != "no frame":',
        "if isinstance(error, Fenced):",
        ("tests/runtime/edge/test_unreadable.py",),
    ),
    Mutation(
        "a start without a readable checkpoint guesses the positions",
        "runtime/positions/chain.py",
        "        await self._check_whole(self.states_lost)\n",
        "",
        ("tests/runtime/edge/test_unreadable.py",),
    ),
)
