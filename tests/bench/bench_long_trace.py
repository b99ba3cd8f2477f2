"""A trace of ten thousand steps: from the file to the picture of its curves and its load. Goal: 1 s for each view.

The trace is written step by step through the recorder, with invented numbers for four layers of sixteen experts, and
opened by a process that has done nothing else; the page is headless Chromium with an empty host.
"""

import base64
import shutil
import statistics
import subprocess
import sys
import time

import torch
from playwright.sync_api import sync_playwright

from workbench.core.records import StepReport, Tally
from workbench.trace.record import Recorder
from workbench.trace.store import TraceWriter
from workbench.view.bundle import view_module

STEPS, LAYERS, EXPERTS, ROUNDS = 10_000, 4, 16, 5
TAKE = "(text) => { window.payload = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0)); }"
# The bytes lie in the page, as a widget or a socket has them: what is timed is from there to the second frame.
DRAW = """async (source) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  const began = performance.now();
  const view = (await import(url)).default;
  const traits = { payload: new DataView(window.payload.buffer), selection: {} };
  const model = { get: (name) => traits[name], set() {}, save_changes() {}, on() {}, off() {} };
  await view.render({ model, el: document.querySelector("#host") });
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  return performance.now() - began;
}"""
READ = """
import sys, time
from workbench.payloads import {view}_payload
from workbench.trace import open_trace
began = time.perf_counter()
payload = {view}_payload(open_trace(sys.argv[1]))
seconds = time.perf_counter() - began
sys.stdout.buffer.write(f"{{seconds}}\\n".encode() + payload)
"""


def written(folder):
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    with Recorder(TraceWriter(folder)) as recorder:
        for step in range(1, STEPS + 1):
            report = StepReport(
                step=step,
                loss=8 / step**0.3,
                aux_losses={"balance": 1.0},
                aux_weights={"balance": 0.01},
                learning_rate=1e-3,
                grad_norm=0.5,
                tokens=4096 * step,
                tokens_per_second=4000.0,
                wall_seconds=float(step),
            )
            demands = torch.randint(0, 1024, (LAYERS, EXPERTS), generator=generator)
            recorder.add_report(
                report,
                tallies=[
                    Tally(layer=layer, iteration=0, demand=demand, kept=demand, losses={"balance": 1.0}, tokens=4096)
                    for layer, demand in enumerate(demands)
                ],
            )
            if step % 64 == 0:
                recorder.flush()
    return (time.perf_counter() - began) / STEPS


def bench_ten_thousand_steps(tmp_path):
    per_step = written(tmp_path / "trace.zarr")
    print(f"\n{STEPS} steps of {LAYERS} x {EXPERTS} experts: {per_step * 1000:.2f} ms a step to record and write")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        )
        for view in ("loss_curves", "expert_load"):
            read, drawn = zip(*(once(browser, view, tmp_path) for _ in range(ROUNDS)), strict=True)
            whole = [sum(pair) for pair in zip(read, drawn, strict=True)]
            print(
                f"{view:12} opened and packed {statistics.median(read):.2f} s, drawn {statistics.median(drawn):.2f} s, "
                f"together {statistics.median(whole):.2f} s median, {max(whole):.2f} longest of {ROUNDS} (goal: 1)"
            )
        browser.close()


def once(browser, view, folder):
    done = subprocess.run(
        [sys.executable, "-c", READ.format(view=view), str(folder / "trace.zarr")], check=True, stdout=subprocess.PIPE
    )
    seconds, _, payload = done.stdout.partition(b"\n")
    page = browser.new_page()
    page.goto("about:blank")
    page.set_content('<div id="host"></div>')
    page.evaluate(TAKE, base64.b64encode(payload).decode())
    milliseconds = page.evaluate(DRAW, view_module(view))
    assert page.locator("canvas").count()
    page.close()
    return float(seconds), milliseconds / 1000
