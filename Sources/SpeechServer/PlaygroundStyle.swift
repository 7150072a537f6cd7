extension PlaygroundPage {
    /// The page's style sheet.
    static let style = #"""
        :root {
          color-scheme: light dark;
          --paper: #f7f5f0; --card: #ffffff; --ink: #1d2430; --soft: #5b6472; --line: #d9d5cb;
          --accent: #1f6f78; --accent-ink: #ffffff; --glow: #e07a2f; --danger: #a8321f; --screen: #fbfaf7;
        }
        @media (prefers-color-scheme: dark) {
          :root {
            --paper: #10151c; --card: #18202a; --ink: #e9edf2; --soft: #9aa6b5; --line: #2c3744;
            --accent: #58b7bd; --accent-ink: #06181a; --glow: #f2a65a; --danger: #ff8f7a; --screen: #0c1117;
          }
        }
        * { box-sizing: border-box; }
        html { font: 100%/1.5 ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
        body { margin: 0; background: var(--paper); color: var(--ink); }
        main { max-width: 46rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
        header { display: flex; align-items: center; gap: .75rem; margin-bottom: 1.25rem; }
        header svg { width: 2.5rem; height: 2.5rem; flex: none; color: var(--accent); }
        h1 { font-size: 1.35rem; line-height: 1.2; margin: 0; letter-spacing: .01em; }
        header p { margin: 0; color: var(--soft); font-size: .9rem; }
        h2 { font-size: 1rem; margin: 0; }
        .card {
          background: var(--card); border: 1px solid var(--line); border-radius: .9rem; padding: 1rem;
          margin-bottom: 1rem;
        }
        label, .label { display: block; font-size: .85rem; color: var(--soft); margin-bottom: .25rem; }
        textarea, input, select {
          width: 100%; font: inherit; color: inherit; background: var(--paper); border: 1px solid var(--line);
          border-radius: .55rem; padding: .6rem .7rem; min-height: 2.75rem;
        }
        textarea { resize: vertical; min-height: 7rem; font-size: 1.1rem; }
        #instructions, #transcript { min-height: 3.5rem; font-size: 1rem; }
        :focus-visible { outline: 3px solid var(--glow); outline-offset: 2px; }
        .grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin-top: .75rem; }
        .row { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin-top: .9rem; }
        button, .button {
          font: inherit; font-weight: 600; min-height: 2.75rem; padding: .55rem 1.1rem; border-radius: 99rem;
          border: 1px solid var(--line); background: transparent; color: inherit; cursor: pointer;
          text-decoration: none; display: inline-flex; align-items: center; gap: .5rem;
        }
        button.main { background: var(--accent); border-color: var(--accent); color: var(--accent-ink); min-width: 8rem;
          justify-content: center; }
        button.stop { background: var(--danger); border-color: var(--danger); color: var(--card); }
        button:disabled { opacity: .45; cursor: default; }
        .chips { display: flex; flex-wrap: wrap; gap: .4rem; margin-top: .5rem; }
        .chips button { min-height: 2.25rem; padding: .2rem .8rem; font-weight: 400; font-size: .85rem; color: var(--soft); }
        .screen { background: var(--screen); border: 1px solid var(--line); border-radius: .6rem; overflow: hidden; }
        canvas { display: block; width: 100%; }
        #wave { height: 5.5rem; border-bottom: 1px solid var(--line); }
        #spectrum { height: 8.5rem; }
        dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.5rem, 1fr)); gap: .5rem .75rem; margin: .9rem 0 0; }
        dt { font-size: .78rem; color: var(--soft); }
        dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; font-weight: 600; }
        .hash { font: .78rem/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; color: var(--soft);
          overflow-wrap: anywhere; margin: .75rem 0 0; }
        details > summary { cursor: pointer; color: var(--soft); min-height: 2.25rem; padding-top: .5rem; }
        details[open] > summary { color: var(--ink); }
        #more { margin-top: .5rem; }
        #clone summary { padding-top: 0; min-height: 0; color: var(--ink); font-weight: 600; }
        @media (pointer: coarse) { .keys { display: none; } }
        #problem { color: var(--danger); margin: .75rem 0 0; font-weight: 600; }
        #problem:empty, #status:empty { display: none; }
        #status { color: var(--soft); margin: 0; flex: 1 1 10rem; min-height: 1.5rem; }
        .hint { color: var(--soft); font-size: .85rem; margin: .5rem 0 0; }
        audio { width: 100%; margin-top: .75rem; }
        meter { width: 8rem; height: 1rem; }
        footer { color: var(--soft); font-size: .85rem; text-align: center; }
        footer a { color: inherit; }
        [hidden] { display: none !important; }
        """#
}
