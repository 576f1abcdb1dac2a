#!/usr/bin/env python3
"""Writes the files beside it with pyarrow (26.0.1), and `expected.json` with what pyarrow reads from them."""

import json
import math
import pathlib

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
ROWS = 13


def table():
    texts = [None if i % 7 == 3 else f"row {i}: é 日本 " + "x" * (i % 5) + "\n\ttab " for i in range(ROWS)]
    texts[5] = ""
    floats = [i / 3 for i in range(ROWS)]
    floats[1:5] = [math.nan, math.inf, -math.inf, 1e15]
    meta = [None if i % 5 == 2 else {"text": texts[-i], "n": {"deep": i * 1000}} for i in range(ROWS)]
    return pa.table({
        "id": pa.array([i - 2 + (1 << 62 if i == 9 else 0) for i in range(ROWS)], pa.int64()),
        "text": pa.array(texts, pa.string()),
        "large": pa.array(texts[::-1], pa.large_string()),
        "meta": pa.array(meta, pa.struct([("text", pa.string()), ("n", pa.struct([("deep", pa.uint32())]))])),
        "kind": pa.array([["a", "bb", None][i % 3] for i in range(ROWS)]).dictionary_encode(),
        "flag": pa.array([[True, False, None][i % 3] for i in range(ROWS)]),
        "byte": pa.array([i * 11 for i in range(ROWS)], pa.uint8()),
        "most": pa.array([(1 << 64) - 1 - i for i in range(ROWS)], pa.uint64()),
        "single": pa.array([i / 10 for i in range(ROWS)], pa.float32()),
        "double": pa.array(floats, pa.float64()),
    })


def others():
    return pa.table({
        "text": pa.array(["a", "b"]),
        "tags": pa.array([["x"], []], pa.list_(pa.string())),
        "blob": pa.array([b"x", None], pa.binary()),
        "pairs": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
        "day": pa.array([1, 2], pa.date32()),
        "meta": pa.array([{"text": "t"}, None], pa.struct([("text", pa.string())])),
    })


def shown(value):
    """A value as text: a string itself, others as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def single(value):
    """The shortest decimal that is this number in 32 bits."""
    return shown(float(next(f"{value:.{digits}g}" for digits in range(1, 18)
                            if pa.scalar(float(f"{value:.{digits}g}"), pa.float32()).as_py() == value)))


def expected(read):
    rows = {name: [] for name in ["id", "text", "large", "meta.text", "meta.n.deep", "kind", "flag", "byte", "most",
                                  "single", "double"]}
    for row in read.to_pylist():
        meta = row.pop("meta") or {"text": None, "n": {"deep": None}}
        row |= {"meta.text": meta["text"], "meta.n.deep": meta["n"]["deep"]}
        for name, value in row.items():
            rows[name].append(single(value) if name == "single" else shown(value))
    return rows


def main():
    data = table()
    files = {}

    def parquet(name, **options):
        pq.write_table(data, HERE / name, **options)
        files[name] = expected(pq.read_table(HERE / name))

    small = {"write_statistics": False, "store_schema": False}
    parquet("plain.parquet", compression="none", use_dictionary=False, row_group_size=9, **small)
    parquet("snappy.parquet", compression="snappy", data_page_version="1.0", **small)
    parquet("gzip.parquet", compression="gzip", data_page_version="2.0", row_group_size=10, **small)
    parquet("brotli.parquet", compression="brotli", data_page_version="2.0", **small)
    parquet("zstd.parquet", compression="zstd", write_statistics=False, data_page_size=64, write_batch_size=4)
    parquet("lz4.parquet", compression="lz4", **small)
    parquet("delta.parquet", compression="zstd", use_dictionary=False, column_encoding={
        "text": "DELTA_BYTE_ARRAY", "large": "DELTA_LENGTH_BYTE_ARRAY", "id": "DELTA_BINARY_PACKED",
        "double": "BYTE_STREAM_SPLIT"}, data_page_version="2.0", **small)
    parquet("delta1.parquet", compression="none", use_dictionary=False, column_encoding={
        "text": "DELTA_LENGTH_BYTE_ARRAY", "large": "DELTA_BYTE_ARRAY"}, **small)

    def arrow(name, new, options, written):
        with pa.OSFile(str(HERE / name), "wb") as sink, new(sink, written.schema, options=options) as writer:
            writer.write_table(written, max_chunksize=13 if options else 7)
        with pa.OSFile(str(HERE / name), "rb") as source:
            read = ipc.open_file(source) if name.endswith(".arrow") else ipc.open_stream(source)
            files[name] = expected(read.read_all())

    views = data.set_column(1, "text", data["text"].cast(pa.string_view()))
    arrow("plain.arrow", ipc.new_file, None, data)
    arrow("lz4.arrow", ipc.new_file, ipc.IpcWriteOptions(compression="lz4"), views)
    arrow("plain.arrows", ipc.new_stream, None, views)
    arrow("zstd.arrows", ipc.new_stream, ipc.IpcWriteOptions(compression="zstd"), data)
    pq.write_table(others(), HERE / "others.parquet", compression="none", **small)
    with pa.OSFile(str(HERE / "others.arrows"), "wb") as sink, ipc.new_stream(sink, others().schema) as writer:
        writer.write_table(others())
    first = files["plain.parquet"]
    assert all(read == first for read in files.values())
    (HERE / "expected.json").write_text(json.dumps(first, ensure_ascii=False, indent=0) + "\n")


if __name__ == "__main__":
    main()
