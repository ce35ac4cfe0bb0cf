"""A call in a process of its own, which may do to it what it likes."""

import multiprocessing

_CONTEXT = multiprocessing.get_context("forkserver")
# With what torch would otherwise import anew at the first backward pass of each.
_CONTEXT.set_forkserver_preload(["tests.attacks.bench", "torch.fx.experimental.symbolic_shapes"])


class DiedError(Exception):
    """The process ended without a result."""


def alone(function, *args):
    """What the function returns, from a process that nothing else uses.

    Raises:
        DiedError: the process has ended without a result; nobody else's does for that.
    """
    reader, writer = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(writer, function, args))
    process.start()
    writer.close()
    try:
        return reader.recv()
    except EOFError:
        process.join()
        raise DiedError(f"exit code {process.exitcode}") from None
    finally:
        reader.close()
        process.kill()
        process.join()


def _run(writer, function, args):
    writer.send(function(*args))
    writer.close()
