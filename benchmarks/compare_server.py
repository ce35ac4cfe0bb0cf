"""One revision's side of `benchmarks.compare`: a call for every line of standard input.

It uses the public door alone, so that it runs with revisions older than itself.
"""

import sys
import time

import torch

import cab


def main():
    name, pattern, phase, *sizes = sys.argv[1:]
    length, heads, dim, threads = map(int, sizes)
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    width = heads * dim
    module = cab.attention(
        name, pattern=pattern, heads=heads, head_dim=dim, embed_dim=width, max_length=length
    ).eval()
    train = phase == "forward_backward"
    print(cab.__file__, flush=True)
    for _ in sys.stdin:
        q, k, v = (torch.randn(1, heads, length, dim, requires_grad=train) for _ in range(3))
        gradient = torch.randn(1, heads, length, dim)
        own = torch.randn(1, length, width)
        other = torch.randn(1, length, width) if module.pattern.cross else own
        context = cab.AttentionContext(query_input=own, key_input=other)
        with torch.set_grad_enabled(train):
            start = time.perf_counter()
            out = module(q, k, v, context)
            if train:
                out.backward(gradient)
            seconds = time.perf_counter() - start
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
