// What the browser tests ask a page: everything is read from what a reader gets, never from the view's own state.
window.probe = (() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const isShown = (node) => node.offsetParent !== null;
  const outline = (node) => node.outerHTML.slice(0, 100);
  // The browser computes `rgb(1, 2, 3)` or, for a mixed colour, `color(srgb 0.1 0.2 0.3)`.
  const channels = (text) => {
    const values = (text.replace("srgb", "").match(/[\d.]+/g) || []).map(Number);
    return text.startsWith("color(") ? [...values.slice(0, 3).map((v) => v * 255), ...values.slice(3)] : values;
  };
  const pixels = (canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);

  const luminance = (rgb) => {
    const linear = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };

  const ground = (start) => {
    for (let node = start; node; node = node.parentElement) {
      const colour = channels(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };

  // Which cell does the view itself say a place belongs to, and which colour has most of that cell?
  const scan = (canvas, readout, stride) => {
    const { data } = pixels(canvas);
    const box = canvas.getBoundingClientRect();
    const ratio = canvas.width / box.width;
    const votes = {};
    for (let y = 1; y < box.height; y += stride) {
      for (let x = 1; x < box.width; x += stride) {
        readout.textContent = "";
        const place = { clientX: box.left + x, clientY: box.top + y, bubbles: true };
        canvas.dispatchEvent(new PointerEvent("pointerdown", place));
        const at = (Math.round(y * ratio) * canvas.width + Math.round(x * ratio)) * 4;
        const colour = data.slice(at, at + 4).join(",");
        const cell = (votes[readout.textContent] = votes[readout.textContent] || {});
        cell[colour] = (cell[colour] || 0) + 1;
      }
    }
    const most = (counts) => Object.entries(counts).sort((a, b) => b[1] - a[1])[0][0].split(",").map(Number);
    return Object.fromEntries(Object.entries(votes).map(([text, counts]) => [text, most(counts)]));
  };

  return {
    cells: () => all(".moe-table tbody tr").map((row) => [...row.cells].map((cell) => cell.textContent)),

    faded: () => all(".moe-token").map((token) => token.classList.contains("moe-faded")),

    written: () => all(".moe-token").map((token) => token.classList.contains("moe-written")),

    inTabOrder: () => all(".moe-token").filter((token) => token.tabIndex === 0).map((token) => token.dataset.token),

    bands: () => all(".moe-token .moe-band").map((band) => {
      const style = getComputedStyle(band);
      const [ground, edge, line] = [style.backgroundColor, style.borderTopColor, style.borderTopStyle];
      return { number: band.textContent, kind: band.className, ground, edge, line };
    }),

    detail: () => all(".moe-detail-table tbody tr").map((row) => {
      const chips = [...row.querySelectorAll(".moe-chip")];
      return [row.cells[0].textContent, chips.map((chip) => [chip.children[0].textContent, chip.children[1].textContent])];
    }),

    heatmap: (stride) => scan(document.querySelector(".moe-expert_load canvas[aria-label^='Load of']"), document.querySelector(".moe-readout"), stride),

    // The same for any picture with a sentence on the place under the pointer; `nth` among the view's canvases.
    scan: ([nth, stride]) => {
      const canvas = all(".moe-canvas").filter(isShown)[nth];
      return scan(canvas, canvas.parentElement.nextElementSibling, stride);
    },

    // The colour at a place of a canvas, given as shares of its size.
    colourAt: ([nth, x, y]) => {
      const canvas = all(".moe-canvas").filter(isShown)[nth];
      const { data } = pixels(canvas);
      const at = (Math.round(y * (canvas.height - 1)) * canvas.width + Math.round(x * (canvas.width - 1))) * 4;
      return [...data.slice(at, at + 4)];
    },

    // How many pixels of a canvas have (nearly) a colour.
    countColour: ([nth, ...wanted]) => {
      const { data } = pixels(all(".moe-canvas").filter(isShown)[nth]);
      let count = 0;
      for (let at = 0; at < data.length; at += 4) {
        const distance = wanted.reduce((total, value, i) => total + Math.abs(data[at + i] - value), 0);
        if (distance < 12 && data[at + 3] > 200) count += 1;
      }
      return count;
    },

    // Mean column of the pixels of a colour.
    meanColumn: ([nth, ...wanted]) => {
      const { data, width } = pixels(all(".moe-canvas").filter(isShown)[nth]);
      let [sum, count] = [0, 0];
      for (let at = 0; at < data.length; at += 4) {
        const distance = wanted.reduce((total, value, i) => total + Math.abs(data[at + i] - value), 0);
        if (distance < 12 && data[at + 3] > 200) {
          sum += (at / 4) % width;
          count += 1;
        }
      }
      return sum / count;
    },

    pairs: () => all(".moe-pair").map((box) => ({
      first: box.firstElementChild.textContent,
      second: box.lastElementChild.textContent,
      text: box.children[1].textContent,
      grounds: [box.firstElementChild, box.lastElementChild].map((band) => getComputedStyle(band).backgroundColor),
      isMoved: box.classList.contains("moe-moved"),
      isShifted: box.classList.contains("moe-shifted"),
      outline: getComputedStyle(box).outlineStyle,
      isFaded: box.classList.contains("moe-faded"),
      label: box.getAttribute("aria-label"),
    })),

    // Column -> mean height and number of the pixels of one colour.
    columns: ([nth, ...wanted]) => {
      const canvas = all(".moe-loss_curves canvas.moe-canvas")[nth];
      const { data, width, height } = pixels(canvas);
      const out = {};
      for (let x = 0; x < width; x += 1) {
        let [sum, count] = [0, 0];
        for (let y = 0; y < height; y += 1) {
          const at = (y * width + x) * 4;
          const distance = wanted.reduce((total, value, i) => total + Math.abs(data[at + i] - value), 0);
          if (distance < 12 && data[at + 3] > 200) {
            sum += y;
            count += 1;
          }
        }
        if (count > 0) out[x] = [sum / count, count];
      }
      return out;
    },

    blankCanvases: () => all(".moe-canvas").filter(isShown).filter((canvas) => !pixels(canvas).data.some((value) => value !== 0)).length,

    worstContrast: () => {
      let worst = [99, ""];
      const skip = "[hidden], .moe-faded, .moe-hidden, .moe-dropped .moe-band, [aria-hidden=true]";
      for (const node of all(".moe-view :is(h3, p, span, b, button, td, th, dt, dd, li, select, caption, small)")) {
        const { color } = getComputedStyle(node);
        if (!node.textContent.trim() || node.closest(skip)) continue;
        const [a, b] = [luminance(channels(color)), luminance(ground(node))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < worst[0]) worst = [(a + 0.05) / (b + 0.05), outline(node)];
      }
      return worst;
    },

    sticksOut: () => all(".moe-view :is(button, select, canvas, input, textarea)").filter(isShown)
      .filter((node) => node.getBoundingClientRect().right > innerWidth).map(outline),

    tooSmall: () => all(".moe-view :is(button, select, input, textarea, [role=option])").filter(isShown).filter((node) => {
      const { width, height } = node.getBoundingClientRect();
      return width < 24 || height < 24;
    }).map(outline),

    tabStops: () => all(".moe-view :is(button, select, input, textarea, summary, [tabindex='0'])")
      .filter((node) => isShown(node) && node.tabIndex === 0 && !node.disabled).length,

    focused: () => {
      const node = document.activeElement;
      if (!node.closest(".moe-view")) return null;
      const { outlineStyle, outlineWidth } = getComputedStyle(node);
      return [all("*").indexOf(node), outlineStyle, parseFloat(outlineWidth)];
    },

    pickMilliseconds: (nth) => {
      const token = all(".moe-token")[nth];
      const start = performance.now();
      token.click();
      document.body.getBoundingClientRect();
      return performance.now() - start;
    },

    axe: async () => {
      const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];
      const found = await window.axe.run("#host", { runOnly: tags, rules: { region: { enabled: false } } });
      return found.violations.flatMap(({ id, help, nodes }) => nodes.map(({ html }) => `${id}: ${help}: ${html.slice(0, 120)}`));
    },

    // Time until the panel of a token under the pointer is laid out, for many tokens.
    hoverMilliseconds: (count) => {
      const tokens = all(".moe-token");
      return Array.from({ length: count }, (_, i) => {
        const start = performance.now();
        tokens[(i * 37) % tokens.length].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
        document.querySelector(".moe-detail").getBoundingClientRect();
        return performance.now() - start;
      });
    },

    whatThePolicyBlocks: () => new Promise((done) => {
      const seen = [];
      setTimeout(() => done(seen.sort()), 3000);
      document.addEventListener("securitypolicyviolation", (event) => {
        seen.push(event.effectiveDirective);
        if (seen.length === 3) done(seen.sort());
      });
      fetch("http://127.0.0.1:9/").catch(() => {});
      new Image().src = "http://127.0.0.1:9/x.png";
      const script = document.createElement("script");
      script.textContent = "window.hacked = 1";
      document.body.append(script);
    }),
  };
})();
