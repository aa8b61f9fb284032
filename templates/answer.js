// The first screen of a report: limits that choose among the methods, tips, folds, and the choice in the address.
// The page is complete without it. The data are the summary that report.json holds,
// its pairs as the methods' relations, a letter each.
{
  const NB = "\u00a0";
  const list = (items, word = "and") =>
    items.flatMap((item, i) => (i === 0 ? [item] : [i < items.length - 1 ? ", " : ` ${word} `, item]));

  // ---- What follows from the data: no document in here. Sentences are arrays of texts and methods. ----
  const choosing = (data) => {
    const { methods, score } = data;
    const axes = Object.fromEntries(data.axes.map((axis) => [axis.key, axis]));
    const keys = [...data.axes.map((axis) => axis.key), "score"];
    const scoreFirst = ["score", ...keys.filter((key) => key !== "score")];
    const numbered = methods.length > 7 || methods.some((m) => [...m.name].length > 20);
    const number = new Map(methods.map((m, at) => [m, at + 1]));
    const capital = (text) => text[0].toUpperCase() + text.slice(1);
    const noun = { time: "time", memory: "memory", size: "saved size", score: score.title };
    for (const key of keys) noun[key] ??= axes[key].title.toLowerCase();
    const unit = (key) => (key === "score" ? score.unit : axes[key].unit);

    // Values: a limit is on `limited`, a rank by `ranked`, which of memory is what training adds.
    const rankedBy = (key) => (key === "score" ? "score" : axes[key].tested || axes[key].id);
    const limited = (m, key) => (m.base && key === "size" ? undefined : m.v[key === "score" ? "score" : axes[key].id]);
    const ranked = (m, key) => (m.base && key === "size" ? undefined : m.v[rankedBy(key)]);
    const floor = (key) => key === "score" && score.better === "higher";
    const beyond = (key, x, limit) => (floor(key) ? x < limit : x > limit);

    // Numbers as text
    const fixed = (x, digits) => {
      // a half goes to the even digit, as Python has it; toFixed rounds it up
      const size = Math.abs(x), tens = size * 10 ** digits, low = Math.floor(tens);
      const half = tens - low === 0.5 && Number.isInteger(size * 2 ** (digits + 1)) && low % 2 === 0;
      const [whole, part] = (half ? low / 10 ** digits : size).toFixed(digits).split(".");
      const text = whole.replace(/\B(?=(\d{3})+$)/g, ",") + (part ? `.${part}` : "");
      return (x < 0 && /[1-9]/.test(text) ? "−" : "") + text;
    };
    const significant = (x, digits) =>
      x ? fixed(x, Math.max(0, Math.min(6, digits - 1 - Math.floor(Math.log10(Math.abs(x)) + 1e-9)))) : "0";
    const withUnit = (text, name) => (name ? text + NB + name : text);
    // as the page writes them: scores in their digits, costs in three, sizes in the unit that suits each
    const decimals = (key, x) =>
      key === "score" ? score.digits : x ? Math.max(0, 2 - Math.floor(Math.log10(Math.abs(x)))) : 0;
    const digits = (key, x, more) =>
      key !== "score" && x && Math.abs(x) < 1e-4
        ? x.toExponential(2 + more).replace(/e-(\d)$/, "e-0$1")
        : fixed(x, decimals(key, x) + more);
    const bytes = (mb, more) => {
      const [size, name] = [[1e3, "GB"], [1, "MB"], [1e-3, "kB"]].find(([least]) => mb >= least) || [1e-6, "B"];
      return withUnit(name === "B" ? fixed(mb / size, more) : digits("size", mb / size, more), name);
    };
    const inBytes = (key) => key === "size" && axes.size.unit === "MB";
    const shown = (key, x, more = 0) =>
      inBytes(key) ? bytes(x, more) : withUnit(digits(key, x, more), unit(key));
    const limitText = (key, limit) => withUnit(fixed(limit, (String(limit).split(".")[1] || "").length), unit(key));
    // A value with as many digits as tell on which side of a limit it is.
    const beside = (key, x, limit) => {
      if (inBytes(key)) return shown(key, x, x !== limit && Math.abs(x / limit - 1) < 0.05 ? 2 : 0);
      const right = (more) => {
        const rounded = Number(x.toFixed(decimals(key, x) + more));
        return x === limit || (rounded !== limit && beyond(key, rounded, limit) === beyond(key, x, limit));
      };
      return shown(key, x, [0, 1, 2, 3].find(right) ?? 4);
    };
    const excess = (key, by) =>
      inBytes(key) ? bytes(by, 0) : withUnit(significant(by, 2), key === "score" ? score.difference_unit : unit(key));

    // Relations, as Answer.relation
    const RELATIONS = { b: "better", w: "worse", e: "equal", o: "open", u: "untested" };
    const relation = (key, one, other) =>
      RELATIONS[data.relations[key][number.get(one) - 1][number.get(other) - 1]];
    const related = (key, one, of, ...relations) =>
      of.filter((other) => other !== one && relations.includes(relation(key, one, other)));

    // A method under a limit: within, close (its mean is within, some run is not), over, or unknown.
    const judge = (m, key, limit) => {
      const value = limited(m, key);
      if (limit === null || (!value && m.base && key !== "score")) return { how: "within" };
      if (!value) return { how: "unknown" };
      if (beyond(key, value.m, limit)) return { how: "over" };
      const over = value.runs.filter((x) => beyond(key, x, limit));
      const by = Math.max(...over.map((x) => Math.abs(x - limit)));
      return over.length ? { how: "close", over: over.length, runs: value.runs.length, by } : { how: "within" };
    };
    // Methods in `sure` are within all limits in every run; those in `close` and `gone` say by which they aren't.
    const choose = (state) => {
      const found = { sure: [], close: [], gone: [] };
      for (const m of methods) {
        const by = keys.map((key) => ({ m, key, ...judge(m, key, state[key]) })).filter((j) => j.how !== "within");
        const out = by.filter((j) => j.how !== "close");
        if (out.length) found.gone.push({ m, by: out });
        else if (by.length) found.close.push({ m, by });
        else found.sure.push(m);
      }
      return found;
    };
    // The order of some methods by what matters most: those none of them is shown to beat, then the others by mean.
    const rank = (key, of) => {
      const sign = floor(key) ? -1 : 1;
      const order = of.filter((m) => ranked(m, key)).sort((p, q) => sign * (ranked(p, key).m - ranked(q, key).m));
      const tested = order.filter((m) => related(key, m, order, "better", "worse", "equal", "open").length);
      const head = tested.filter((m) => !related(key, m, order, "worse").length);
      return {
        order, head,
        rest: tested.filter((m) => !head.includes(m)),
        untested: order.filter((m) => !tested.includes(m)),
        unknown: of.filter((m) => !ranked(m, key)),
      };
    };
    // The least change of one limit alone that lets a method fit in every run, for each limit that has one.
    const loosen = (state) => keys.filter((key) => state[key] !== null).flatMap((key) => {
      const worst = (m) => (floor(key) ? Math.min : Math.max)(...limited(m, key).runs, limited(m, key).m);
      const others = choose({ ...state, [key]: null }).sure.filter((m) => limited(m, key));
      if (!others.length) return [];
      const [m] = others.sort((p, q) => (floor(key) ? worst(q) - worst(p) : worst(p) - worst(q)));
      const step = 10 ** (Math.floor(Math.log10(Math.abs(worst(m)) || 1)) - 3);
      const to = Number(((floor(key) ? Math.floor : Math.ceil)(worst(m) / step) * step).toPrecision(12));
      return [{ key, fit: others.filter((other) => !beyond(key, worst(other), to)), to }];
    });

    // Words
    const short = (name) => ([...name].length > 20 ? `${[...name].slice(0, 19).join("")}…` : name);
    const nameOf = (m, long) => {
      if (m.base) return ["the base model"];
      if (!numbered) return [{ name: m.name }];
      return [`no.${NB}${number.get(m)}`, ...(long ? [" ", { name: short(m.name) }] : [])];
    };
    const label = (m) => nameOf(m, true), brief = (m) => nameOf(m, false);
    const named = (of, word) => (of.length > 4 ? [`${of.length} ${data.noun}s`] : list(of.map(label), word).flat());
    const numbers = (of) => {
      const ranges = [];
      for (const at of of.map((m) => number.get(m)).sort((p, q) => p - q)) {
        if (ranges.at(-1)?.[1] === at - 1) ranges.at(-1)[1] = at;
        else ranges.push([at, at]);
      }
      const text = ([from, to]) => (to === from ? `${from}` : `${from}${to === from + 1 ? ", " : "–"}${to}`);
      return `no.${NB}${ranges.map(text).join(", ")}`;
    };
    const others = (of, word = "or") => {
      const trained = of.filter((m) => !m.base), bases = of.filter((m) => m.base).map(brief);
      if (numbered && trained.length) return list([[numbers(trained)], ...bases], word).flat();
      return of.length > 4 ? [`${of.length} others`] : list(of.map(brief), word).flat();
    };
    const added = () => axes.memory?.tested && axes.memory.tested !== axes.memory.id;
    const peak = (m) => (limited(m, "memory") ? ` of its ${shown("memory", limited(m, "memory").m)} peak` : "");
    const worth = (m, key) => shown(key, ranked(m, key).m) + (key === "memory" && added() ? peak(m) : "");
    const best = {
      score: ["has", "have", `the ${score.better === "higher" ? "highest" : "lowest"} ${score.title}`],
      time: ["trains", "train", "fastest"],
      memory: added() ? ["needs", "need", "least memory to train"] : ["needs", "need", "least memory"],
      size: ["saves", "save", "the smallest file"],
    };
    for (const key of keys) best[key] ??= ["has", "have", `the lowest ${noun[key]}`];
    const limits = (state) => keys.filter((key) => state[key] !== null);
    const one = ["suite", "data set"].includes(data.over) ? data.over : "run";
    const these = data.over === "row" ? "rows" : `${one}s`;
    const counts = data.shared ? " of the shared seeds" : data.failures.length ? " that ended well" : "";
    const every = () => (data.seeds > 1 ? `in every ${one}${one === "run" ? counts : ""}` : "in one run each");
    const within = (state) => (limits(state).length ? `Within your limits ${every()}: ` : "");
    const why = (key) => {
      if (data.unranked && key !== "score" && !axes[key].exact)
        return `Costs rank nothing here: ${data.unranked}.`;
      if (key === "score" && data.untested) return `Nothing is tested: ${data.untested}.`;
      if (key !== "score" && data.noun === "system") return "No two of them were tested.";
      return data.seeds < 2 ? `One seed can't rank ${data.noun}s: run 3 or more.` : "No two of them were tested.";
    };

    const pick = (state, found) => {
      const key = state.first, { order, head, untested, rest, unknown } = rank(key, found.sure);
      if (!found.sure.length)
        return [found.close.length ? `Nothing stays within your limits ${every()}.` : "Nothing fits your limits."];
      const start = within(state), [verb, plural, what] = best[key];
      if (!order.length) {
        const whose = unknown.length > 1 ? "Their" : "Its";
        return [start, ...named(unknown), `. ${whose} ${noun[key]} was not measured.`];
      }
      const text = worth(order[0], key);
      if (order.length === 1 && limits(state).length) {
        const how = unknown.length ? `has a measured ${noun[key]}` : "stays";
        return ["Only ", ...label(order[0]), ` ${how} within your limits ${every()}: ${text}.`];
      }
      if (order.length === 1) return ["Only ", ...label(order[0]), ` was measured: ${text}.`];
      if (!head.length) {
        const reason = untested.length ? why(key) : "Each loses to another.";
        return start ? [start, ...named(order), `. ${reason}`] : [reason];
      }
      const beaten = related(key, head[0], order, "better").length === order.length - 1;
      if (head.length === 1 && beaten && head[0] !== order[0])
        return [start, ...label(head[0]), ` is shown to be best by ${noun[key]}, over what each pair shares.`];
      if (head.length === 1 && beaten) return [start, ...label(head[0]), ` ${verb} ${what}: ${worth(head[0], key)}.`];
      if (head.length === 1) {
        const open = related(key, head[0], rest, "open", "equal");
        const but = open.length ? [" It can't be told from ", ...others(open), "."] : [];
        return [start, ...label(head[0]), ` may ${plural} ${what}: ${worth(head[0], key)}.`, ...but];
      }
      if (head.every((m) => related(key, m, head, "equal").length === head.length - 1)) {
        if (axes[key]?.exact) return [start, ...named(head), ` ${plural} ${what}: ${text}.`];
        return [start, ...named(head), ` are shown equal, and not beaten, by ${noun[key]}.`];
      }
      return [start, ...named(head, "or"), ` may ${plural} ${what}. These ${these} can't tell which.`];
    };

    // What a method is not shown to beat by score, of guessing and the base model
    const bases = methods.filter((m) => m.base), below = data.guess ? data.guess.below : [];
    const unproven = (m) => ({
      guessing: below.includes(m.name),
      "the base model": !m.base && bases.some((base) => relation("score", m, base) !== "better"),
    });
    const doubtLines = (state, found) => {
      if (state.first !== "score") return [];
      const { head } = rank("score", found.sure);
      return ["guessing", "the base model"].flatMap((what) => {
        const of = head.filter((m) => unproven(m)[what]);
        return of.length ? [[`Not shown to beat ${what}: `, ...named(of), "."]] : [];
      });
    };

    const few = numbered ? 6 : 9;
    const groups = (state, found) => {
      const key = state.first, { order, head, rest, untested, unknown } = rank(key, found.sure);
      const item = (m) => {
        const open = related(key, m, order, "open"), equal = related(key, m, order, "equal");
        const note = [worth(m, key)];
        if (rest.includes(m) && open.length) note.push(", can't tell from ", ...others(open));
        if (rest.includes(m) && equal.length) note.push(", equal to ", ...others(equal));
        return { label: label(m), note };
      };
      const made = [
        ["May be best", head.length > 1 ? head : []],
        [head.length ? "Then by mean" : "By mean", rest],
        [head.length ? "Not tested" : "By mean, not tested", order.length > 1 ? untested : []],
      ].map(([title, of]) => ({ title, items: of.slice(0, few).map(item), more: Math.max(0, of.length - few) }));
      if (order.length && unknown.length)
        made.push({
          title: "Not measured", more: Math.max(0, unknown.length - few),
          items: unknown.slice(0, few).map((m) => ({ label: label(m), note: m.base ? ["(not trained)"] : [] })),
        });
      return made.filter((group) => group.items.length);
    };

    const side = (key) => (floor(key) ? "under" : "over");
    const closeLines = (state, found) => found.close.flatMap(({ m, by }) => by.map(({ key, over, runs, by: most }) => {
      const mean = beside(key, limited(m, key).m, state[key]), beyondIt = `${side(key)} ${limitText(key, state[key])}`;
      const count = `${over} of ${runs} ${one}s ${over > 1 ? "are" : "is"}`;
      return ["Close: ", ...label(m), ` averages ${mean}. ${count} ${beyondIt}, by up to ${excess(key, most)}.`];
    }));
    const goneLines = (state, found) => keys.flatMap((key) => {
      const of = (how) =>
        found.gone.filter(({ by }) => by.some((j) => j.key === key && j.how === how)).map(({ m }) => m);
      const many = (all, one) => {
        if (all.length > few) return [`${all.length} ${data.noun}s`, ...(numbered ? [", ", ...others(all, "and")] : [])];
        return all.flatMap((m, at) => (at ? [", ", ...one(m)] : one(m)));
      };
      const value = (m) => {
        const text = beside(key, limited(m, key).m, state[key]);
        return [...brief(m), numbered ? ` (${text})` : ` ${text}`];
      };
      const beyondIt = `${capital(noun[key])} ${side(key)} ${limitText(key, state[key] ?? 0)}: `;
      const [over, unknown] = [of("over"), of("unknown")];
      return [
        ...(over.length ? [[beyondIt, ...many(over, value), "."]] : []),
        ...(unknown.length ? [[`${capital(noun[key])} not measured: `, ...many(unknown, brief), "."]] : []),
      ];
    });
    const looseLines = (state, found) => {
      if (found.sure.length || !limits(state).length) return [];
      const ways = loosen(state).map(({ key, fit, to }) => [
        `${floor(key) ? "Lower" : "Raise"} the ${noun[key]} limit to ${limitText(key, to)}: `,
        ...named(fit), fit.length > 1 ? " fit." : " fits.",
      ]);
      return ways.length ? ways : [["No limit alone is the reason: loosen two or more."]];
    };
    // Badges of a method's row: what excludes it, or in how many runs it is beyond.
    const chips = (found) => {
      const excluded = (by, how, words) => {
        const of = by.filter((j) => j.how === how).map((j) => noun[j.key]);
        return of.length ? [{ kind: "excl", text: `${words}: ${of.join(", ")}` }] : [];
      };
      const near = ({ key, over, runs, by }) => {
        const where = `${over} of ${runs} ${one}s ${side(key)} ${noun[key]} limit`;
        return { kind: "near", text: `close: ${where}, by up to ${excess(key, by)}` };
      };
      return new Map([
        ...found.gone.map(({ m, by }) =>
          [m, [...excluded(by, "over", "beyond limit"), ...excluded(by, "unknown", "not measured")]]),
        ...found.close.map(({ m, by }) => [m, by.map(near)]),
      ]);
    };
    // Tip of a mark: values, then how it stands to the others.
    const tip = (m) => {
      const range = (v, key) => (v.lo === null ? "" : ` (${shown(key, v.lo)} to ${shown(key, v.hi)})`);
      const lines = scoreFirst.filter((key) => limited(m, key)).map((key) =>
        [`${key === "score" ? capital(score.title) : axes[key].title} ${shown(key, limited(m, key).m)}`
        + (axes[key]?.exact ? "" : range(limited(m, key), key))]);
      const words = { worse: "Behind ", open: "Can't tell from ", equal: "Equal to ", better: "Better than " };
      for (const how of Object.keys(words)) {
        const of = related("score", m, methods, how);
        if (of.length) lines.push([words[how], ...others(of, how === "open" ? "or" : "and"), "."]);
      }
      return lines;
    };
    // Positions of a slider, 0 to 100, and values
    const scale = (key) => {
      const all = methods.flatMap((m) => (limited(m, key) ? [limited(m, key).m, ...limited(m, key).runs] : []));
      const lo = Math.min(...all), hi = Math.max(...all), log = key !== "score" && lo > 0 && hi / lo > 25;
      const gap = (hi - lo) * 0.04 || Math.abs(hi) * 0.04 || 1;
      const [from, to] = log ? [Math.log(lo / 1.05), Math.log(hi * 1.05)] : [lo - gap, hi + gap];
      const digits = (hi - lo) / Math.abs(hi || 1) < 0.05 ? 5 : (hi - lo) / Math.abs(hi || 1) < 0.5 ? 4 : 3;
      const value = (at) => from + ((to - from) * at) / 100;
      const place = (x) => (100 * ((log ? (x > 0 ? Math.log(x) : from) : x) - from)) / (to - from);
      return {
        rest: floor(key) ? 0 : 100,
        value: (at) => Number((log ? Math.exp(value(at)) : value(at)).toPrecision(digits)),
        place: (x) => Math.max(0, Math.min(100, place(x))),
      };
    };
    return {
      keys, scoreFirst, methods, noun, unit, floor, limits, limitText, choose, scale,
      pick, groups, doubtLines, closeLines, goneLines, looseLines, chips, tip, every,
    };
  };

  // The address: #?x=memory&memory=500&score=74&first=time&at=cost; what it doesn't know, it leaves out.
  const fromAddress = (hash, keys, axes) => {
    const query = new URLSearchParams(hash.startsWith("#?") ? hash.slice(2) : "");
    const value = (key) => {
      const text = (query.get(key) || "").trim(), x = text === "" ? NaN : Number(text);
      return Number.isFinite(x) && (key === "score" || x >= 0) ? x : null;
    };
    const state = Object.fromEntries(keys.map((key) => [key, value(key)]));
    const limited = keys.find((key) => key !== "score" && state[key] !== null);
    const x = axes.includes(query.get("x")) ? query.get("x") : axes.includes(limited) ? limited : axes[0];
    const first = keys.includes(query.get("first")) ? query.get("first") : "score";
    return { ...state, first, x, at: query.get("at") || "" };
  };
  const toAddress = (state, keys, axes) => {
    const query = new URLSearchParams();
    if (state.x && state.x !== axes[0]) query.set("x", state.x);
    for (const key of keys) if (state[key] !== null) query.set(key, String(state[key]));
    if (state.first !== "score") query.set("first", state.first);
    if (!query.toString()) return state.at && `#${encodeURIComponent(state.at)}`;
    if (state.at) query.set("at", state.at);
    return `#?${query}`;
  };

  // ---- The page ----
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];
  const fill = (node, parts) => {
    for (const part of parts) {
      const child = typeof part === "object" && "name" in part ? document.createElement("bdi") : part;
      if (child !== part) child.textContent = part.name;
      node.append(child);
    }
    return node;
  };
  const make = (tag, attributes, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const drawn = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };

  // The line of a limit in a picture, and the shaded side; up is better, left is cheaper.
  const drawLimits = (svg, state) => {
    const [log, x0, x1, left, right, y0, y1, top, bottom, up] = svg.dataset.s.split(" ").map(Number);
    const made = [], between = (x, least, most) => Math.min(most, Math.max(least, x));
    const line = (x1, x2, y1, y2) => drawn("line", { class: "limline", x1, x2, y1, y2 });
    const shade = (x, y, width, height) => drawn("rect", { class: "lim", x, y, width, height });
    const cost = state[svg.dataset.axis];
    if (cost !== null && cost !== undefined) {
      const f = log ? (x) => Math.log(Math.max(x, 1e-300)) : (x) => x;
      const x = between(left + ((f(cost) - f(x0)) / (f(x1) - f(x0))) * (right - left), left, right);
      if (x < right) made.push(shade(x, top, right - x, bottom - top), line(x, x, top, bottom));
    }
    if (state.score !== null) {
      const share = (state.score - y0) / (y1 - y0);
      const y = between(top + (up > 0 ? 1 - share : share) * (bottom - top), top, bottom);
      if (y < bottom) made.push(shade(left, y, right - left, bottom - y), line(left, right, y, y));
    }
    svg.querySelector(".limits")?.replaceChildren(...made);
  };

  const start = (data, root) => {
    const logic = choosing(data), { keys, scoreFirst, methods, noun } = logic;
    const pictures = all('.pic input[name="x"]'), axes = pictures.map((input) => input.value);
    const state = fromAddress(location.hash, keys, axes);

    // Address, and links to anchors inside closed folds
    const save = (how) => {
      const hash = toAddress(state, keys, axes);
      try {
        history[how](null, "", hash || location.pathname + location.search);
      } catch {
        // some browsers refuse for a page from disk
      }
    };
    const show = (target) => {
      for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    };
    const go = (target, behavior = "auto") => {
      show(target);
      // a fold's summary is its title: it comes into view too
      (target.closest("details.one") || target).scrollIntoView({ behavior });
      const focus = target.querySelector(":scope > h2") || target;
      if (!focus.matches("a[href], button, input, summary, [tabindex]")) focus.tabIndex = -1;
      focus.focus({ preventScroll: true });
    };
    const anchor = (hash) => {
      try {
        return hash.length > 1 ? document.getElementById(decodeURIComponent(hash.slice(1))) : null;
      } catch {
        return null;
      }
    };
    let opened = null;
    document.addEventListener("click", (event) => {
      const link = event.target.closest('a[href^="#"]'), target = link && anchor(link.getAttribute("href"));
      if (!target || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
      state.at = target.id;
      if (toAddress(state, keys, axes).startsWith("#?")) {
        event.preventDefault(); // the choice stays in the address
        save("pushState");
      }
      const fold = target.closest("details.one");
      if (fold) opened = { fold, link };
      hideTip();
      go(target);
    });
    const hideTip = () => { if (tip) tip.hidden = true; };
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      if (tip && !tip.hidden) return hideTip();
      const fold = document.activeElement?.closest("details.one[open]");
      if (!fold) return;
      fold.open = false;
      const back = opened?.fold === fold ? opened.link : fold.querySelector("summary");
      back?.focus();
    });

    // A mark and its row light up together; a mark has a tip
    const tip = make("div", { class: "tip", id: "tip", role: "tooltip" });
    tip.hidden = true;
    document.body.append(tip);
    const showTip = (mark, m) => {
      const lines = logic.tip(m).map((parts) => fill(make("span", {}), parts));
      const chips = (badges.get(m) || []).map(({ text }) => make("span", { class: "mind" }, text));
      tip.replaceChildren(fill(make("b", {}), [{ name: m.name }]), ...chips, ...lines);
      tip.hidden = false;
      const at = (mark.querySelector(".dot") || mark).getBoundingClientRect();
      const wide = document.documentElement.clientWidth;
      const x = Math.max(8, Math.min(at.left + at.width / 2 - tip.offsetWidth / 2, wide - tip.offsetWidth - 8));
      const above = at.top - tip.offsetHeight - 12;
      tip.style.left = `${x + scrollX}px`;
      tip.style.top = `${(above < 48 ? at.bottom + 12 : above) + scrollY}px`;
    };
    let badges = new Map();
    const marked = new Map(methods.map((m, at) => [m, all(`[data-m="${at + 1}"]`)]));
    for (const [m, nodes] of marked) {
      for (const node of nodes) {
        const light = (on) => {
          for (const other of nodes) other.classList.toggle("hot", on);
          if (!node.classList.contains("pt")) return;
          if (on) showTip(node, m); else hideTip();
        };
        node.addEventListener("mouseenter", () => light(true));
        node.addEventListener("mouseleave", () => light(false));
        node.addEventListener("focusin", () => light(true));
        node.addEventListener("focusout", () => light(false));
      }
    }

    // The chooser
    const limit = (key) => {
      const side = logic.floor(key) ? ["≥", "at least"] : ["≤", "at most"];
      const name = noun[key][0].toUpperCase() + noun[key].slice(1);
      const range = make("input",
        { type: "range", min: 0, max: 100, step: 1, id: `r-${key}`, "aria-labelledby": `l-${key}` });
      const box = make("input", {
        type: "number", step: "any", id: `n-${key}`, placeholder: "no limit", inputmode: "decimal",
        ...(key === "score" ? {} : { min: 0 }),
      });
      const label = make("label", { id: `l-${key}`, for: `n-${key}` }, `${name} `,
        make("span", { "aria-hidden": "true" }, side[0]), make("span", { class: "sr" }, side[1]));
      const unit = make("span", { class: "u" }, logic.unit(key));
      const field = make("span", { class: "box" }, box, unit);
      const node = make("div", { class: "limit", "data-k": key }, label, range, field);
      const scale = logic.scale(key);
      const put = (from) => {
        const x = state[key];
        if (from !== box) box.value = x === null ? "" : x;
        if (from !== range) range.value = x === null ? scale.rest : scale.place(x);
        range.setAttribute("aria-valuetext", x === null ? "no limit" : logic.limitText(key, x));
        node.classList.toggle("set", x !== null);
      };
      const set = (x, from) => {
        state[key] = x;
        if (axes.includes(key)) state.x = key;
        put(from);
        changed();
      };
      range.addEventListener("input", () => {
        const at = Number(range.value);
        set(at === scale.rest ? null : scale.value(at), range);
      });
      box.addEventListener("input", () => set(Number.isFinite(box.valueAsNumber) ? box.valueAsNumber : null, box));
      return { node, put, box };
    };
    const controls = keys.map(limit);
    const matters = { score: data.score.title, time: "speed", memory: "memory", size: "size" };
    for (const key of keys) matters[key] ??= noun[key];
    const firsts = scoreFirst.map((key) => {
      const input = make("input", { type: "radio", name: "first", id: `f-${key}`, value: key });
      input.addEventListener("change", () => {
        state.first = key;
        if (axes.includes(key)) state.x = key;
        changed();
      });
      return [input, make("label", { for: `f-${key}` }, matters[key])];
    });
    const clear = make("button", { type: "button", class: "clear" }, "Clear limits");
    clear.addEventListener("click", () => {
      for (const key of keys) state[key] = null;
      for (const { put } of controls) put(null);
      controls[0].box.focus();
      changed();
    });
    const result = make("div", { class: "result" }), status = make("p", { class: "sr", role: "status" });
    const choice = make("div", { class: "seg", role: "radiogroup", "aria-labelledby": "l-first" }, ...firsts.flat());
    const form = make("form", { class: "limits", autocomplete: "off" },
      make("div", { class: "top" }, make("h3", { id: "fits" }, "What fits you?"),
        make("div", { class: "prio" }, make("span", { id: "l-first" }, "What matters most"), choice)),
      make("div", { class: "row" }, ...controls.map(({ node }) => node)));
    form.addEventListener("submit", (event) => event.preventDefault());

    const render = (found) => {
      const lines = (name, of, most = 6) => (of.length ? [make("ul", { class: name },
        ...of.slice(0, most).map((parts) => fill(make("li", {}), parts)),
        ...(of.length > most ? [make("li", {}, `And ${of.length - most} more: see their rows.`)] : []))] : []);
      const groups = logic.groups(state, found).flatMap(({ title, items, more }) => {
        const spans = items.map(({ label, note }) =>
          fill(make("span", {}), [...label, " ", fill(make("i", {}), note)]));
        const rest = more ? [make("span", {}, make("i", {}, `and ${more} more`))] : [];
        return [make("dt", {}, title), make("dd", {}, ...[...spans, ...rest].flatMap((span) => [span, " "]))];
      });
      result.replaceChildren(
        fill(make("p", { class: "pick" }), logic.pick(state, found)),
        ...lines("loose", logic.looseLines(state, found)),
        ...(groups.length ? [make("dl", { class: "groups" }, ...groups)] : []),
        ...lines("near", logic.doubtLines(state, found)),
        ...lines("near", logic.closeLines(state, found)),
        ...lines("gone", logic.goneLines(state, found), 8),
        ...(logic.limits(state).length ? [clear] : []),
      );
    };
    const update = () => {
      const found = logic.choose(state);
      const gone = new Set(found.gone.map(({ m }) => m)), close = new Set(found.close.map(({ m }) => m));
      badges = logic.chips(found);
      for (const [m, nodes] of marked) {
        for (const node of nodes) {
          node.classList.toggle("out", gone.has(m));
          node.classList.toggle("near", close.has(m));
          node.querySelector(".outs")?.replaceChildren(
            ...(badges.get(m) || []).flatMap(({ kind, text }) => [make("span", { class: `chip ${kind}` }, text), " "]));
        }
      }
      for (const input of pictures) input.checked = input.value === state.x;
      for (const [input] of firsts) input.checked = input.value === state.first;
      for (const svg of all("svg.plot[data-s]")) drawLimits(svg, state);
      render(found);
      return found;
    };
    let speaking = 0, saving = 0;
    const changed = () => {
      state.at = "";
      const found = update();
      clearTimeout(saving);
      saving = setTimeout(() => save("replaceState"), 200); // browsers refuse a hundred in a row
      clearTimeout(speaking);
      speaking = setTimeout(() => {
        const fit = `${found.sure.length} of ${methods.length} ${data.noun}s fit ${logic.every()}.`;
        status.textContent = `${result.querySelector(".pick").textContent} ${fit}`;
      }, 700);
    };
    const restore = (behavior) => {
      update();
      for (const { put } of controls) put(null);
      const target = location.hash.startsWith("#?") ? document.getElementById(state.at) : anchor(location.hash);
      if (target) go(target, behavior);
    };
    for (const input of pictures) input.addEventListener("change", () => {
      state.x = input.value;
      save("replaceState");
    });
    addEventListener("hashchange", () => {
      if (location.hash.startsWith("#?")) Object.assign(state, fromAddress(location.hash, keys, axes));
      restore();
    });
    if (root && methods.length > 1) {
      root.className = "chooser";
      root.setAttribute("role", "region");
      root.setAttribute("aria-labelledby", "fits");
      root.replaceChildren(form, result, status);
    }
    restore("instant");
  };

  const data = document.getElementById("data");
  if (data) start(JSON.parse(data.textContent), document.getElementById("chooser"));
}
