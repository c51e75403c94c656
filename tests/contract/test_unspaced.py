"""Chinese, Japanese and Korean."""

from meilisearch import Client

from .steps import formatted, found, texts


def test_japanese(client: Client) -> None:
    index = texts(
        client,
        "東京のお寿司。",
        "京都に行きます",
        "この度、クーポンで無料で頂きました。",
        "plain text",
    )
    assert found(index, "東京") == [0]
    assert found(index, "京都") == [1]
    assert found(index, "寿司") == [0]
    assert found(index, "クーポン") == [2]
    assert found(index, "大阪") == []


def test_chinese(client: Client) -> None:
    index = texts(client, "大卫到了扫罗那里", "我们明天在北京开会", "今天天气很好")
    assert found(index, "大卫") == [0]
    assert found(index, "北京") == [1]
    assert found(index, "明天") == [1]
    assert found(index, "天气") == [2]


def test_korean(client: Client) -> None:
    index = texts(client, "안녕하세요 세계", "내일 회의가 있습니다")
    assert found(index, "세계") == [0]
    assert found(index, "회의") == [1]


def test_they_stand_beside_other_scripts(client: Client) -> None:
    index = texts(client, "Meet at 東京 station", "deploy失敗しました")
    assert found(index, "東京") == [0]
    assert found(index, "station 東京", matchingStrategy="all") == [0]
    assert found(index, "deploy") == [1]
    assert found(index, "失敗") == [1]


def test_matches_are_marked(client: Client) -> None:
    index = texts(client, "この度、クーポンで無料で頂きました。", "大卫到了扫罗那里")
    marked = formatted(index, "で", attributesToHighlight=["content"])
    assert marked == "この度、クーポン<em>で</em>無料<em>で</em>頂きました。"
    marked = formatted(index, "大卫", attributesToHighlight=["content"])
    assert marked == "<em>大卫</em>到了扫罗那里"
