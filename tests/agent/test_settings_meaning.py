"""What keys mean: each refusal of a value, of keys beside each other, and of tables that refer."""

from __future__ import annotations

import pytest

from config_text import OF_MAIN, VALID, with_job, with_vcenter, wrong


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            with_job("vcenter = 'mian'\n"),
            'f:12: jobs.nightly.vcenter: has no table [vcenters.mian]; did you mean "main"?',
        ),
        (
            VALID + OF_MAIN.replace("main", "b").replace("vc1", "vc2") + "password.file = 'x'\n",
            "f:10: jobs.nightly.vcenter: is missing, and there are several: main, b",
        ),
        (
            VALID
            + "vcenter = 'main'\n"
            + OF_MAIN.replace("main", "b").replace("com", "COM:443")
            + "password.file = 'x'\n",
            'f:14: vcenters.b.address: is the vCenter "main" again',
        ),
        (
            VALID
            + "vcenter = 'main'\n"
            + OF_MAIN.replace("main", "MAIN").replace("vc1", "vc2")
            + "password.file = 'x'\n",
            'f:13: vcenters.MAIN: differs from "main" in capital letters only',
        ),
        (
            with_job("name = 'other'\n"),
            'f:12: jobs.nightly.name: unknown key; the name is the table\'s: "nightly"',
        ),
        (
            VALID.replace('["*"]', "[]"),
            "f:11: jobs.nightly.select: selects nothing; `everything = true` takes every VM",
        ),
        (
            VALID.replace('["*"]', '["a"], everything = true'),
            "f:11: jobs.nightly.select.everything: takes every VM, whatever names says",
        ),
        (
            with_job("exclude.everything = true\n"),
            "f:12: jobs.nightly.exclude.everything: leaves no VM to back up",
        ),
        (
            with_job("exclude.attributes = ['owner']\n"),
            'f:12: jobs.nightly.exclude.attributes[0]: must be "name=pattern"',
        ),
        (
            with_job("schedule = '61 * * * *'\n"),
            "f:12: jobs.nightly.schedule: is no cron expression: bad minute",
        ),
        (
            with_job("window = { start = '25:00', end = '06:00' }\n"),
            'f:12: jobs.nightly.window.start: must be a time of day from "00:00" to "23:59"',
        ),
        (
            with_job("window = { start = '22:00', end = '22:00' }\n"),
            "f:12: jobs.nightly.window.end: is the window's start too; "
            "for the whole day leave the window out",
        ),
        (
            with_vcenter("thumbprint = 'AA:BB'"),
            "f:9: vcenters.main.thumbprint: has 2 bytes; "
            "a thumbprint has 20 (SHA-1) or 32 (SHA-256)",
        ),
        (
            with_vcenter("thumbprint = 'XX'"),
            'f:9: vcenters.main.thumbprint: must be hexadecimal bytes: "AA:BB:..."',
        ),
        (
            with_vcenter(f"ca_file = 'x'\nthumbprint = '{'ab' * 20}'"),
            "f:10: vcenters.main.thumbprint: excludes ca_file: "
            "pin the certificate or trust an authority",
        ),
        (
            VALID.replace('{ file = "password" }', '{ file = "a", environment = "B" }'),
            "f:8: vcenters.main.password: names file and environment; one source is enough",
        ),
        (
            VALID.replace('{ file = "password" }', "{ }"),
            'f:8: vcenters.main.password: must say where the secret is: { file = "..." }, '
            '{ command = "..." } or { environment = "..." }',
        ),
        (
            VALID.replace('{ file = "password" }', '{ environment = "NO-DASH" }'),
            "f:8: vcenters.main.password.environment: must be the name of an environment variable",
        ),
        (
            VALID.replace('"vc1.example.com"', '"https://vc1/sdk"'),
            "f:6: vcenters.main.address: must be a host or host:port, "
            'without "https://" and a path',
        ),
        (
            VALID.replace('"vc1.example.com"', '"::1"'),
            "f:6: vcenters.main.address: must be a host or host:port; "
            "an IPv6 address stands in brackets",
        ),
        (
            VALID.replace('"vc1.example.com"', '"vc1:70000"'),
            "f:6: vcenters.main.address: has the port 70000; ports are 1 to 65535",
        ),
        (
            VALID.replace('"/srv/backpoint"', '"s3://bucket//x"'),
            "f:2: repository.path: is no place of a repository: 's3://bucket//x': "
            "there is nothing between two slashes",
        ),
        (
            VALID + '[store]\naccess_key_id = "a"\nsecret_access_key = "AKIA"',
            "f:14: store.secret_access_key: secrets do not stand in this file; say where it is: "
            '{ file = "..." }, { command = "..." } or { environment = "..." }',
        ),
        (
            VALID + '[store]\naccess_key_id = "AKIA"',
            "f:13: store.access_key_id: needs a secret_access_key beside it",
        ),
        (
            VALID + '[[store.at]]\naddress = "/srv/other"',
            "f:13: store.at[0].address: must begin with s3://, gs:// or az://",
        ),
        (
            VALID.replace('"agent.credential"', '"x"\npassphrase.file = "y"'),
            "f:4: repository.passphrase: excludes credential; the agent needs only the credential",
        ),
        (
            with_job("limits.bandwidth = 'fast'\n"),
            "f:12: jobs.nightly.limits.bandwidth: 'fast' is not a size; "
            "write it like 65536, 64K or 1.5G",
        ),
        (
            with_job("limits.bandwidth = '200'\n"),
            "f:12: jobs.nightly.limits.bandwidth: must be at least 64.0 KiB a second",
        ),
        (
            with_job("transports = ['https',\n'hotadd']\n"),
            'f:13: jobs.nightly.transports[1]: "hotadd" needs [transports.hotadd]',
        ),
        (
            with_job("transports = ['datastore']\n[transports.datastores]\n"),
            'f:12: jobs.nightly.transports[0]: "datastore" needs an entry in '
            "[transports.datastores]",
        ),
        (
            with_job("[transports.datastores]\na = '/mnt'\nb = '/mnt'\n"),
            'f:14: transports.datastores.b: is the folder of "a" too',
        ),
        (
            with_job("[jobs.nightly.quiesce.post_thaw]\nprogram = 'x'\n"),
            "f:12: jobs.nightly.quiesce.post_thaw: needs the guest's login: "
            "a table `guest` beside it",
        ),
        (
            with_job("[transports.vddk]\ncommand = ['nbdkit', '{sock}']\n"),
            "f:13: transports.vddk.command[1]: has the unknown placeholder {sock}; there are: "
            "compression, file, libdir, moref, password_file, pidfile, server, snapshot, socket, "
            "thumbprint, transports, user",
        ),
        (
            with_job("[transports.vddk]\ntransports = 'nbd:fc'\n"),
            'f:13: transports.vddk.transports: has the unknown mode "fc"; '
            "there are: file, hotadd, nbd, nbdssl, san",
        ),
        (
            with_job("[transports.hotadd]\nproxy = 'proxy01'\n"),
            'f:13: transports.hotadd.proxy: must be a UUID: "501e4f52-8a1b-..."',
        ),
        (
            with_job("[jobs.nightly.retention]\nkeep_daily = 0\n"),
            "f:12: jobs.nightly.retention: keeps nothing; leave the table out to keep every point",
        ),
        (
            with_job("[[jobs.nightly.exclude_disks]]\nvm = 'a'\ndisks = []\n"),
            "f:14: jobs.nightly.exclude_disks[0].disks: must not be empty",
        ),
        (
            with_job("[jobs.'a/b']\nselect.names = ['*']\n"),
            'f:12: jobs."a/b": is a bad name: up to 64 letters, digits, dots, hyphens and '
            "underscores, the first a letter or digit",
        ),
        (
            with_job(
                "[report.mail]\nserver = 'm'\nsender = 's'\nto = ['t']\nsecurity = 'none'\n"
                "user = 'u'\npassword.file = 'p'\n"
            ),
            'f:16: report.mail.security: must be "starttls" or "tls" where there is a password',
        ),
        (
            with_job("[report.mail]\nserver = 'm'\nsender = 's'\nto = ['t']\nuser = 'u'\n"),
            "f:16: report.mail.user: needs a password beside it",
        ),
        (
            "state = '~nobody-of-this-name/x'\n" + VALID,
            "f:1: state: the home of ~nobody-of-this-name is not known",
        ),
    ],
)
def test_keys_are_checked_with_what_they_mean(text: str, told: str) -> None:
    """Each refusal names the key to blame, and nothing else is wrong with the file."""
    assert wrong(text) == [told]
