// The JupyterLab extension of Pratipad-NB: colours for `%%dataflow` cells, the "Dataflows" side panel, and
// the saved picture of a flow that no kernel can show live any more.
//
// Written by hand as the container that JupyterLab's module federation expects (`init` is given the page's
// shared modules, `get` returns ours), so that there is no build and no Node is needed. The container takes
// every module from the page, so that each module exists once.

(() => {
  "use strict";

  const NAME = "pratipad-nb";
  const COMM_TARGET = "pratipad_nb.dataflows";

  let shared = {};
  const take = async (name) => {
    const versions = Object.values(shared[name] ?? {});
    if (!versions.length) throw new Error(`${NAME}: this page has no ${name}`);
    return (await versions[0].get())();
  };

  // -- highlighting -----------------------------------------------------------------------------------------

  const HEAD = /^\s*%%dataflow\b/;
  // The order matters: the first pattern that matches wins. The kernel parses the notation; these patterns
  // only find its words.
  const WORDS = new RegExp(
    [
      "(?<comment>#.*)",
      "(?<string>\"(?:[^\"\\\\\\n]|\\\\.)*\"?|'(?:[^'\\\\\\n]|\\\\.)*'?)",
      "(?<arrow><?~>)",
      "(?<keyword>\\b(?:Push|Pull|Demand|Output)\\b)",
      "(?<atom>\\b(?:True|False|None)\\b)",
      "(?<argument>\\b[^\\W\\d]\\w*(?=\\s*=))",
      "(?<number>(?<![\\w.])[-+]?\\d[\\w.]*)",
      "(?<processor>\\b[^\\W\\d][\\w.]*)",
      "(?<bracket>[\\[\\]{}(),=])",
    ].join("|"),
    "gu",
  );
  const HEAD_WORDS = /(?<magic>%%dataflow\b)|(?<option>--[\w-]+)|(?<name>\b[^\W\d][\w-]*)/gu;

  const words = function* (text) {
    const end = text.indexOf("\n") < 0 ? text.length : text.indexOf("\n");
    for (const [from, part, pattern] of [[0, text.slice(0, end), HEAD_WORDS], [end, text.slice(end), WORDS]])
      for (const match of part.matchAll(pattern)) {
        const [kind] = Object.entries(match.groups).find(([, found]) => found !== undefined);
        yield [from + match.index, from + match.index + match[0].length, kind];
      }
  };

  const highlighting = ({ view, state }) => {
    const marks = {};
    const mark = (kind) => (marks[kind] ??= view.Decoration.mark({ class: `pnb-${kind}` }));
    const decorate = (editor) => {
      const found = new state.RangeSetBuilder();
      const text = editor.state.doc.toString();
      if (HEAD.test(text)) for (const [from, to, kind] of words(text)) found.add(from, to, mark(kind));
      return found.finish();
    };
    const plugin = view.ViewPlugin.fromClass(
      class {
        constructor(editor) {
          this.decorations = decorate(editor);
        }
        update(change) {
          if (change.docChanged) this.decorations = decorate(change.view);
        }
      },
      { decorations: (it) => it.decorations },
    );
    return state.Prec.highest(plugin); // inside the colours that Python's highlighter gives the same words
  };

  // -- the side panel ---------------------------------------------------------------------------------------

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes))
      if (key.startsWith("on")) made[key] = value;
      else made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  const counted = (number, one) => `${number.toLocaleString()} ${one}${number === 1 ? "" : "s"}`;

  const HINT = "Flows that this notebook's kernel runs are listed here. Start one in a %%dataflow cell.";

  const sidePanel = ({ Widget }, { NotebookActions }, tracker) => {
    const list = element("ul", { class: "pnb-flows", "aria-label": "Running dataflows" });
    const hint = element("p", { class: "pnb-hint" }, HINT);
    let comm = null;
    let asked = null; // the kernel that was asked for its flows, to leave that kernel when another is shown

    const draw = (flows) => {
      hint.hidden = flows.length > 0;
      list.replaceChildren(...flows.map(row));
    };

    const row = (flow) =>
      element(
        "li",
        { class: "pnb-flow", "data-flow": flow.name },
        element(
          "div",
          { class: "pnb-title" },
          element("strong", {}, flow.name),
          element("span", { class: `pnb-state pnb-${flow.state}` }, flow.state),
          element("button", {
            class: "jp-mod-styled pnb-stop",
            "aria-label": `Stop ${flow.name}`,
            title: "Finish the messages in flight, then stop",
            onclick: () => comm?.send({ do: "stop", name: flow.name }),
          }, "Stop"),
        ),
        element("code", {}, flow.notation),
        element("div", { class: "pnb-numbers" },
          `${flow.rate.toLocaleString()} msg/s · ${counted(flow.delivered, "message")} · ${counted(flow.connected, "device")}`),
        ...(flow.trouble ? [element("div", { class: "pnb-trouble", role: "alert" }, flow.trouble)] : []),
      );

    const leave = () => {
      const open = comm;
      comm = asked = null;
      if (open && !open.isDisposed) open.close();
      draw([]);
    };

    // A kernel without pratipad_nb would log an error for each try: only notebooks that name it are asked.
    const usesIt = (panel) => {
      for (const cell of panel.content.model?.cells ?? [])
        if (cell.sharedModel.getSource().includes("pratipad_nb")) return true;
      return false;
    };

    const listen = () => {
      const panel = tracker.currentWidget;
      const kernel = panel?.sessionContext.session?.kernel ?? null;
      if (kernel !== asked) leave();
      if (!body.isVisible || !kernel || comm || !usesIt(panel)) return;
      asked = kernel;
      const opened = (comm = kernel.createComm(COMM_TARGET));
      opened.onMsg = (message) => draw(message.content.data.flows);
      opened.onClose = () => {
        if (comm === opened) comm = null;
        draw([]);
      };
      opened.open();
    };

    const body = new (class extends Widget {
      onAfterShow() {
        listen();
      }
      onAfterHide() {
        leave();
      }
    })({ node: element("div", {}, hint, list) });
    body.id = "pratipad-dataflows";
    body.addClass("pnb-panel");
    body.title.caption = "Dataflows of this notebook's kernel";

    const watched = new WeakSet();
    const watch = (panel) => {
      if (!panel || watched.has(panel)) return;
      watched.add(panel);
      panel.sessionContext.kernelChanged.connect(listen);
      panel.sessionContext.statusChanged.connect((_, status) => {
        if (/restarting|dead|terminating/.test(status) && tracker.currentWidget === panel) leave();
      });
    };
    tracker.currentChanged.connect((_, panel) => {
      watch(panel);
      listen();
    });
    watch(tracker.currentWidget);
    NotebookActions.executed.connect(listen);
    return body;
  };

  // -- the saved picture ------------------------------------------------------------------------------------

  const PICTURE = "application/vnd.pratipad.flow+json";
  const VIEW = "application/vnd.jupyter.widget-view+json";

  // A flow's output is drawn by the widget's own renderer, which says "model not found" for ever once the
  // kernel is gone. Whenever the renderer holds no widget, the picture saved beside the widget replaces that
  // text.
  const pictureOrWidget = (rendermime) => (options) => {
    const renderer = rendermime.createRenderer(VIEW, { ...options, mimeType: VIEW });
    const render = renderer.renderModel.bind(renderer);
    const stand = ({ data, metadata }) => {
      if (renderer.widgets.length || !data["image/png"]) return;
      const width = metadata["image/png"]?.width;
      renderer.node.replaceChildren(
        element("img", { src: `data:image/png;base64,${data["image/png"]}`, alt: data["text/plain"] ?? "",
          class: "pnb-saved", ...(width ? { width } : {}) }),
        element("div", { class: "pnb-hint" }, "The picture as it was saved: no kernel of this notebook runs this flow."));
    };
    renderer.renderModel = async (model) => {
      const done = render(model);
      stand(model);
      await done;
      stand(model);
    };
    return renderer;
  };

  const watchPictures = (tracker) => {
    const add = (_, panel) => {
      const { rendermime } = panel.content;
      rendermime.addFactory({ safe: false, mimeTypes: [PICTURE], createRenderer: pictureOrWidget(rendermime) }, -20);
    };
    tracker.forEach((panel) => add(tracker, panel));
    tracker.widgetAdded.connect(add);
  };

  // -- styles -----------------------------------------------------------------------------------------------

  const STYLE = `
    .pnb-magic, .pnb-option { color: var(--jp-mirror-editor-meta-color) !important; }
    .pnb-option { font-weight: normal; }
    .pnb-magic, .pnb-keyword { font-weight: 600; }
    .pnb-name, .pnb-processor { color: var(--jp-mirror-editor-def-color) !important; }
    .pnb-keyword { color: var(--jp-mirror-editor-keyword-color) !important; }
    .pnb-arrow { color: var(--jp-mirror-editor-operator-color) !important; font-weight: 600; }
    .pnb-argument { color: var(--jp-mirror-editor-variable-color) !important; }
    .pnb-number, .pnb-atom { color: var(--jp-mirror-editor-number-color) !important; }
    .pnb-string { color: var(--jp-mirror-editor-string-color) !important; }
    .pnb-comment { color: var(--jp-mirror-editor-comment-color) !important; font-style: italic; }
    .pnb-bracket { color: var(--jp-mirror-editor-bracket-color) !important; }
    .pnb-magic *, .pnb-option *, .pnb-name *, .pnb-processor *, .pnb-keyword *, .pnb-arrow *, .pnb-argument *,
    .pnb-number *, .pnb-atom *, .pnb-string *, .pnb-comment *, .pnb-bracket * { color: inherit !important; }
    .pnb-panel { overflow: auto; color: var(--jp-ui-font-color1); background: var(--jp-layout-color1);
      font-size: var(--jp-ui-font-size1); }
    .pnb-hint { margin: 12px; color: var(--jp-ui-font-color2); line-height: 1.5; }
    .pnb-saved { max-width: 100%; height: auto; }
    .pnb-saved + .pnb-hint { margin: 4px 0; }
    .pnb-flows { list-style: none; margin: 0; padding: 0; }
    .pnb-flow { padding: 8px 12px; border-bottom: 1px solid var(--jp-border-color2); display: grid; gap: 4px; }
    .pnb-title { display: flex; align-items: center; gap: 8px; }
    .pnb-title strong { overflow: hidden; text-overflow: ellipsis; }
    .pnb-state { font-size: var(--jp-ui-font-size0); padding: 1px 6px; border-radius: 8px;
      border: 1px solid var(--jp-border-color1); color: var(--jp-ui-font-color2); }
    .pnb-state.pnb-running { border-color: var(--jp-success-color1); }
    .pnb-state.pnb-paused, .pnb-state.pnb-draining { border-color: var(--jp-warn-color1); border-style: dashed; }
    .pnb-state.pnb-failed { border-color: var(--jp-error-color1); color: var(--jp-error-color1); }
    .pnb-panel .pnb-stop { margin-left: auto; }
    .pnb-flow code { white-space: pre-wrap; overflow-wrap: anywhere; color: var(--jp-ui-font-color2);
      background: none; font-size: var(--jp-code-font-size); }
    .pnb-numbers { font-variant-numeric: tabular-nums; }
    .pnb-trouble { color: var(--jp-error-color1); }
  `;

  // Cards joined by arrows, in the theme's colour of icons.
  const ICON = `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">
    <g class="jp-icon3" fill="#616161"><path d="M2 9h6v6H2zM16 3h6v6h-6zM16 15h6v6h-6z"/>
    <path d="M8 11.2 14.6 6l1 1.3L9 12.5zM9 11.5l6.6 5.2-1 1.3L8 12.8z"/></g></svg>`;

  // -- the plugins ------------------------------------------------------------------------------------------

  const plugins = async () => {
    const [codemirror, view, state, notebook, widgets, ui] = await Promise.all(
      ["@jupyterlab/codemirror", "@codemirror/view", "@codemirror/state", "@jupyterlab/notebook", "@lumino/widgets",
        "@jupyterlab/ui-components"].map(take),
    );
    return [
      {
        id: `${NAME}:highlighting`,
        description: "Colours for %%dataflow cells.",
        autoStart: true,
        requires: [codemirror.IEditorExtensionRegistry],
        activate: (_app, registry) => {
          document.head.append(element("style", {}, STYLE));
          registry.addExtension({
            name: `${NAME}:highlighting`,
            factory: () =>
              codemirror.EditorExtensionRegistry.createImmutableExtension(highlighting({ view, state })),
          });
        },
      },
      {
        id: `${NAME}:panel`,
        description: "The Dataflows side panel.",
        autoStart: true,
        requires: [notebook.INotebookTracker],
        activate: (app, tracker) => {
          const body = sidePanel(widgets, notebook, tracker);
          body.title.icon = new ui.LabIcon({ name: `${NAME}:flows`, svgstr: ICON });
          app.shell.add(body, "left", { rank: 550 });
        },
      },
      {
        id: `${NAME}:picture`,
        description: "The saved picture of a flow that no kernel runs.",
        autoStart: true,
        requires: [notebook.INotebookTracker],
        activate: (_app, tracker) => watchPictures(tracker),
      },
    ];
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: (scope) => {
      shared = scope;
    },
    get: async () => {
      const made = await plugins();
      return () => ({ __esModule: true, default: made });
    },
  };
})();
