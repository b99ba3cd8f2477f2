"""Text of a Debian system: man pages, message catalogues, headers, release notes, tables."""

import gettext
import gzip
import re
import subprocess
import unicodedata
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from records import Raw

__all__ = ["LICENCES", "c_headers", "english", "installed", "tables", "translations"]

# SPDX licence of the files that are taken from each package, from its /usr/share/doc/*/copyright.
LICENCES = {
    "adduser": "GPL-2.0-or-later",
    "apt": "GPL-2.0-or-later",
    "base-files": "each text is its own licence; verbatim copies permitted",
    "bash": "GPL-3.0-or-later",
    "binutils-common": "GPL-3.0-or-later",
    "coreutils": "GPL-3.0-or-later",
    "debianutils": "GPL-2.0-or-later",
    "diffutils": "GPL-3.0-or-later",
    "distro-info-data": "ISC",
    "dpkg": "GPL-2.0-or-later",
    "dpkg-dev": "GPL-2.0-or-later",
    "e2fsprogs": "GPL-2.0-only",
    "fakeroot": "GPL-3.0-or-later",
    "findutils": "GPL-3.0-or-later",
    "gettext": "GPL-3.0-or-later",
    "git": "GPL-2.0-only",
    "gnupg-l10n": "GPL-3.0-or-later",
    "grep": "GPL-3.0-or-later",
    "groff-base": "GPL-3.0-or-later",
    "iproute2": "GPL-2.0-or-later",
    "iso-codes": "LGPL-2.1-or-later",
    "libapt-pkg6.0": "GPL-2.0-or-later",
    "libc-l10n": "LGPL-2.1-or-later",
    "libc6-dev": "LGPL-2.1-or-later",
    "libdpkg-perl": "GPL-2.0-or-later",
    "libgcc-12-dev": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libglib2.0-data": "LGPL-2.1-or-later",
    "linux-libc-dev": "GPL-2.0-only WITH Linux-syscall-note",
    "login": "BSD-3-Clause",
    "make": "GPL-3.0-or-later",
    "man-db": "GPL-2.0-or-later",
    "manpages": "Linux-man-pages-copyleft and others, per page",
    "manpages-dev": "Linux-man-pages-copyleft and others, per page",
    "net-tools": "GPL-2.0-or-later",
    "openssl": "Apache-2.0",
    "passwd": "BSD-3-Clause",
    "perl-modules-5.36": "Artistic-1.0-Perl OR GPL-1.0-or-later",
    "procps": "GPL-2.0-or-later",
    "psmisc": "GPL-2.0-or-later",
    "sed": "GPL-3.0-or-later",
    "sensible-utils": "GPL-2.0-or-later",
    "shared-mime-info": "GPL-2.0-or-later",
    "systemd": "LGPL-2.1-or-later",
    "tar": "GPL-3.0-or-later",
    "tzdata": "public domain",
    "util-linux": "GPL-2.0-or-later",
    "wget": "GPL-3.0-or-later",
    "xkb-data": "MIT",
    "xz-utils": "public domain",
}
LANGUAGES = {"german": "de", "french": "fr", "russian": "ru"}
_MAN_PAGES = (
    "adduser apt bash coreutils debianutils dpkg dpkg-dev e2fsprogs findutils groff-base iproute2 libdpkg-perl "
    "man-db manpages manpages-dev openssl passwd procps systemd tar util-linux"
).split()
_NEWS = "bash coreutils diffutils findutils gettext git grep make sed tar wget xz-utils".split()


def installed() -> dict[str, str]:
    """Version of every package in `LICENCES` that is installed.

    Raises:
        LookupError: some are missing; the corpus would come out smaller.
    """
    listing = _output(["dpkg-query", "-W", "-f", "${Package}\t${Version}\n"])
    versions = dict(line.split("\t") for line in listing.splitlines())
    missing = sorted(set(LICENCES) - set(versions))
    if missing:
        raise LookupError(f"expected these Debian packages: {', '.join(missing)}; apt-get install them, then run again")
    return {name: versions[name] for name in sorted(LICENCES)}


def english(versions: Mapping[str, str]) -> Iterator[Raw]:
    """Man pages, release notes, manuals of Perl modules, licences."""
    for package in _MAN_PAGES:
        for path in _files(package):
            # man3 of OpenSSL alone would fill the domain, so only commands and overviews of it are read.
            if re.fullmatch(r"/usr/share/man/man[1-8]/[^/]+\.gz", path) and not _is_link_page(path):
                if package != "openssl" or "/man7/" in path or "/man1/" in path:
                    yield _raw("english", "manual", package, path, versions, _rendered)
    for package in _NEWS:
        for path in _files(package):
            if re.search(r"/doc/[^/]+/(RelNotes/|NEWS|README|FAQ|INTRO)", path) and "Debian" not in path:
                yield _raw("english", "notes", package, path, versions, _plain)
    for path in _files("perl-modules-5.36"):
        if path.endswith((".pod", ".pm")):
            yield _raw("english", "perl", "perl-modules-5.36", path, versions, _pod)
    for path in sorted(Path("/usr/share/common-licenses").iterdir()):
        if not path.is_symlink():
            yield _raw("english", "licence", "base-files", str(path), versions, _plain)


def translations(versions: Mapping[str, str]) -> Iterator[Raw]:
    """Man pages and message catalogues in the other languages."""
    for domain, code in LANGUAGES.items():
        for package in versions:
            for path in _files(package):
                if f"/man/{code}/" in path and not _is_link_page(path):
                    yield _raw(domain, "manual", package, path, versions, _rendered)
                if path.endswith(".mo") and f"/locale/{code}/LC_MESSAGES/" in path:
                    yield _raw(domain, "messages", package, path, versions, _messages)


def c_headers(versions: Mapping[str, str]) -> Iterator[Raw]:
    """Headers of the C library, of Linux and of the compiler."""
    for package in ("libc6-dev", "libgcc-12-dev", "linux-libc-dev"):
        for path in _files(package):
            if path.endswith(".h"):
                yield _raw("c", package, package, path, versions, _plain)


def tables(versions: Mapping[str, str]) -> Iterator[Raw]:
    """JSON, XML and CSV files, and the time zone database as CSV."""
    wanted = {
        "distro-info-data": r"\.csv$",
        "iso-codes": r"/json/.*\.json$",
        "libglib2.0-data": r"\.(xml|its|loc)$",
        "shared-mime-info": r"/packages/.*\.xml$",
        "tzdata": r"\.tab$",
        "xkb-data": r"\.xml$",
    }
    for package, pattern in wanted.items():
        for path in _files(package):
            if re.search(pattern, path) and not Path(path).is_symlink():
                yield _raw("data", Path(path).suffix[1:], package, path, versions, _plain)
    zones = _plain("/usr/share/zoneinfo/zone1970.tab").splitlines()
    for zone in sorted(line.split("\t")[2] for line in zones if not line.startswith("#")):
        yield _raw("data", "zone", "tzdata", f"/usr/share/zoneinfo/{zone}", versions, _zone_csv)


def _raw(
    domain: str, kind: str, package: str, path: str, versions: Mapping[str, str], reader: Callable[[str], str]
) -> Raw:
    return Raw(
        domain=domain,
        kind=kind,
        package=package,
        version=versions[package],
        licence=LICENCES[package],
        path=path.lstrip("/"),
        load=lambda: unicodedata.normalize("NFC", reader(path)),
    )


def _output(command: list[str], **options: str) -> str:
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **options}
    result = subprocess.run(command, capture_output=True, env=environment, check=False)
    return result.stdout.decode("utf-8", "replace")


def _files(package: str) -> list[str]:
    return sorted(path for path in _output(["dpkg", "-L", package]).splitlines() if Path(path).is_file())


def _plain(path: str) -> str:
    data = Path(path).read_bytes()
    data = gzip.decompress(data) if path.endswith(".gz") else data
    return data.decode("utf-8", "replace")


def _is_link_page(path: str) -> bool:
    return Path(path).is_symlink() or _plain(path).lstrip().startswith(".so ")


def _rendered(path: str) -> str:
    command = ["man", "--no-hyphenation", "--no-justification", "-Tutf8", "--local-file", path]
    text = _output(command, MANWIDTH="88", MANROFFOPT="-P-c -P-b -P-o -P-u")
    lines = [line.rstrip() for line in text.replace("\u2010", "-").strip("\n").splitlines()]
    # The first and the last line are the page's header and footer; text is indented by seven columns.
    return "\n".join(line.removeprefix("       ") for line in lines[1:-1])


def _pod(path: str) -> str:
    return _output(["pod2text", "-i0", path])


def _messages(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            catalogue = gettext.GNUTranslations(file)._catalog
    except UnicodeDecodeError:
        return ""  # one old catalogue names a character set that it does not use
    pairs = [(k, v) for k, v in catalogue.items() if isinstance(k, str) and k and isinstance(v, str)]
    texts = [value.strip() for key, value in pairs if value != key and len(value) >= 40]
    return "\n\n".join(dict.fromkeys(texts))


def _zone_csv(path: str) -> str:
    name = path.removeprefix("/usr/share/zoneinfo/")
    zone, moment = zoneinfo.ZoneInfo(name), datetime(1960, 1, 1, tzinfo=UTC)
    rows, last = ["zone,first_day,offset_seconds,dst_seconds,abbreviation"], None
    while moment.year < 2026:
        local = moment.astimezone(zone)
        offset, saving = local.utcoffset() or timedelta(), local.dst() or timedelta()
        state = (int(offset.total_seconds()), int(saving.total_seconds()), local.tzname())
        if state != last:
            rows.append(f"{name},{moment:%Y-%m-%d},{state[0]},{state[1]},{state[2]}")
            last = state
        moment += timedelta(days=1)
    return "\n".join(rows) + "\n"
