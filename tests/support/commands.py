"""Commands of this package, run in the test's own process."""

from absl import flags


def run_main(monkeypatch, module, *arguments):
    """Runs the command's `parse` and `main` with these flags, which nothing else sees."""
    values = flags.FlagValues()
    with monkeypatch.context() as patched:
        patched.setattr(flags, "FLAGS", values)
        for name in ("string", "integer", "float", "bool", "boolean"):
            define = getattr(flags, f"DEFINE_{name}")
            patched.setattr(
                flags, f"DEFINE_{name}",
                lambda *a, _define=define, **k: _define(*a, flag_values=values, **k),
            )  # fmt: skip
        module.parse([module.__name__, *map(str, arguments)])
        module.main()
