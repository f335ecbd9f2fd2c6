import gzip

import pytest

from vq_keras.data import parallel_text
from vq_keras.errors import InputError


def write(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["txt", "gz"])
def test_lines_become_pairs(suffix, tmp_path):
    # A byte order mark, Windows' line ends, spaces around, separators of Unicode inside, no "\n" at the end.
    target = write(tmp_path / f"de.{suffix}", "eins\nzwei \x85 drei\nvier\u2028fünf".encode())
    source = write(tmp_path / f"en.{suffix}", "\ufeffone\r\n two \x85 three\t\nfour\u2028five\n".encode())
    pairs = parallel_text.read(source, str(target))
    assert pairs.sources == ["one", "two \x85 three", "four\u2028five"]
    assert pairs.targets == ["eins", "zwei \x85 drei", "vier\u2028fünf"]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "de.txt is empty: it must hold a sentence a line."),
        (b"\n", "de.txt is empty: it must hold a sentence a line."),
        (b"eins\n \t\ndrei\n", "Line 2 of .*de.txt is empty: remove it from both files, or fill it."),
        (b"eins\nzwei\n\n", "Line 3 of .*de.txt is empty"),
        (b"eins\nzwei\nf\xfcnf\n", r"Line 3 of .*de.txt is not UTF-8 \(invalid start byte\): convert the file."),
        (b"eins\nzwei\n", r"en.txt has 3 lines and .*de.txt has 2: line i of the one must translate line i"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(content, message, tmp_path):
    source, target = write(tmp_path / "en.txt", b"one\ntwo\nthree\n"), write(tmp_path / "de.txt", content)
    with pytest.raises(InputError, match=message):
        parallel_text.read(source, target)


def test_damaged_gzip_files_are_told(tmp_path):
    source = write(tmp_path / "en.gz", b"one\n" * 1000)
    whole = source.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 255
    for content in [whole[: len(whole) // 2], whole[:-3], bytes(changed), b"one\n"]:
        source.write_bytes(content)
        with pytest.raises(InputError, match=r"en\.gz is damaged or is no gzip file"):
            parallel_text.read(source, source)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"There is no file .*none\.txt\."):
        parallel_text.read(tmp_path / "none.txt", tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"There is no file .*none\.gz\."):
        parallel_text.read(tmp_path / "none.gz", tmp_path / "none.gz")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        parallel_text.read(tmp_path, tmp_path)
