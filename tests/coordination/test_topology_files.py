from __future__ import annotations

import networkx as nx
import pytest

from coordination.topology import (
    Topology,
    erdos_renyi,
    exponential,
    from_file,
    from_networkx,
    read_edge_list,
    read_graphml,
    ring,
    write_edge_list,
    write_graphml,
)


def links(topology: Topology) -> list[tuple[int, int]]:
    return sorted(map(tuple, topology.edges.T.tolist()))


def write(folder, name: str, text: str):
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_networkx_nodes_keep_their_order():
    graph = nx.Graph(name="family")
    graph.add_nodes_from(["zoe", "adam", "mia"])
    graph.add_edge("mia", "zoe")
    topology = from_networkx(graph)
    assert topology.node_order == ("zoe", "adam", "mia")
    assert links(topology) == [(0, 2), (2, 0)]
    assert topology.name == "family"


def test_networkx_digraphs_stay_one_way():
    assert links(from_networkx(nx.DiGraph([(0, 1), (2, 1)]))) == [(0, 1), (2, 1)]


def test_networkx_and_back():
    for topology in (erdos_renyi(20, 0.2, seed=1), exponential(9)):
        assert links(from_networkx(topology.to_networkx())) == links(topology)


def test_networkx_graphs_must_be_simple():
    with pytest.raises(ValueError, match="the same edge is listed twice"):
        from_networkx(nx.MultiGraph([(0, 1), (0, 1)]))
    with pytest.raises(ValueError, match="1 self-loops"):
        from_networkx(nx.DiGraph([(0, 0)]))
    with pytest.raises(ValueError, match="num_agents: must be at least 1"):
        from_networkx(nx.Graph())


@pytest.mark.parametrize("topology", [erdos_renyi(12, 0.1, seed=0), exponential(5)])
def test_graphml_round_trip(tmp_path, topology):
    file = tmp_path / "net.graphml"
    write_graphml(topology, file)
    back = from_file(file)
    assert links(back) == links(topology)
    assert back.num_agents == topology.num_agents
    assert back.name == "net"


def test_graphml_keeps_names(tmp_path):
    write_graphml(from_networkx(nx.Graph([("b", "a"), ("a", "c")])), tmp_path / "x.graphml")
    assert read_graphml(tmp_path / "x.graphml").node_order == ("b", "a", "c")


def test_graphml_written_by_networkx(tmp_path):
    graph = nx.karate_club_graph()
    nx.write_graphml(graph, tmp_path / "karate.graphml")
    assert links(from_file(tmp_path / "karate.graphml", num_agents=34)) == links(from_networkx(graph))


@pytest.mark.parametrize("suffix", [".edgelist", ".txt", ".csv"])
def test_edge_list_round_trip(tmp_path, suffix):
    for topology in (ring(7), exponential(7)):
        file = tmp_path / f"net{suffix}"
        write_edge_list(topology, file)
        assert links(from_file(file, directed=not topology.is_undirected)) == links(topology)


def test_edge_lists_take_comments_blanks_and_commas(tmp_path):
    file = write(tmp_path, "a.csv", "# sender,receiver\n0,1\n\n1, 3  # a bridge\n2\t0\n")
    assert links(read_edge_list(file)) == [(0, 1), (0, 2), (1, 0), (1, 3), (2, 0), (3, 1)]
    assert read_edge_list(file, num_agents=6).num_agents == 6
    assert links(read_edge_list(file, directed=True)) == [(0, 1), (1, 3), (2, 0)]


def test_edge_list_written_by_networkx(tmp_path):
    graph = nx.petersen_graph()
    nx.write_edgelist(graph, tmp_path / "p.edgelist", data=False)
    assert links(from_file(tmp_path / "p.edgelist")) == links(from_networkx(graph))


@pytest.mark.parametrize(
    ("text", "arguments", "match"),
    [
        ("0 1\n1 two\n", {}, r"a\.txt, line 2: expected two agent numbers, got '1 two'"),
        ("0 1\n\n0 1 0.5\n", {}, r"a\.txt, line 3: expected two agent numbers, got '0 1 0\.5'"),
        ("0\n", {}, r"a\.txt, line 1: expected two agent numbers"),
        ("0 -1\n", {}, r"a\.txt, line 1: expected two agent numbers"),
        ("0 1\n2 2\n", {}, r"a\.txt, line 2: joins agent 2 to itself"),
        ("0 1\n5 1\n", {"num_agents": 4}, r"a\.txt, line 2: agents are 0\.\.3, got 5 and 1"),
        ("0 1\n1 2\n1 0\n", {}, r"a\.txt, line 3: 0 and 1 were joined on line 1; .*directed=True"),
        ("0 1\n1 0\n0 1\n", {"directed": True}, r"a\.txt, line 3: 0 and 1 were joined on line 1$"),
        ("# nothing\n", {}, r"a\.txt: holds no links; give num_agents"),
    ],
)
def test_malformed_edge_lists_name_file_and_line(tmp_path, text, arguments, match):
    with pytest.raises(ValueError, match=match):
        from_file(write(tmp_path, "a.txt", text), **arguments)


def test_an_edge_list_without_links_is_an_empty_topology(tmp_path):
    assert read_edge_list(write(tmp_path, "a.txt", ""), num_agents=3).num_edges == 0


def test_malformed_graphml_names_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"b\.graphml: not a GraphML file: .*line 1"):
        from_file(write(tmp_path, "b.graphml", "<graphml><oops"))
    with pytest.raises(ValueError, match=r"c\.graphml: "):
        from_file(write(tmp_path, "c.graphml", "<other/>"))
    write_graphml(ring(4), tmp_path / "d.graphml")
    with pytest.raises(ValueError, match=r"d\.graphml: expected 5 agents, got 4 nodes"):
        from_file(tmp_path / "d.graphml", num_agents=5)


def test_other_suffixes_and_missing_files(tmp_path):
    with pytest.raises(ValueError, match=r"net\.gml: expected a file ending in one of \.graphml, \.edgelist"):
        from_file(tmp_path / "net.gml")
    for name in ("none.graphml", "none.csv"):
        with pytest.raises(FileNotFoundError, match=name):
            from_file(tmp_path / name)
