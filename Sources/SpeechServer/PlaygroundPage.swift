import Crypto

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// The page at `/`: type, pick a voice, hear it while it is made. One file, nothing loaded from elsewhere.
enum PlaygroundPage {
    /// The page as it is served.
    static let html = """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Martlet</title>
        <link rel="icon" href="\(icon)">
        <style>\(style)</style>
        </head>
        \(body)
        <script>\(script)</script>
        </html>
        """

    /// Lets the browser run this script and this style and load nothing else.
    static let contentSecurityPolicy =
        "default-src 'none'; script-src \(source(script)); style-src \(source(style)); connect-src 'self'; "
        + "img-src data:; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

    /// Changes with the page.
    static let tag = "\"\(Data(SHA256.hash(data: Data(html.utf8))).prefix(12).base64EncodedString())\""

    private static func source(_ text: String) -> String {
        "'sha256-\(Data(SHA256.hash(data: Data(text.utf8))).base64EncodedString())'"
    }

    private static let icon =
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 48 48'%3E%3Cpath fill='%231f6f78' "
        + "d='\(bird)'/%3E%3C/svg%3E"

    /// A martlet: the bird of heraldry that has no feet and never lands.
    private static let bird =
        "M3 9c11 1 18 4 23 10 3-3 7-4 10-3l6 3-6 2c-1 4-3 7-6 9l7 12-11-9c-2 1-5 1-7 1L8 44l5-13c-2-2-3-5-2-7 2 1 4 1 6 1"
        + "C14 19 9 13 3 9z"

    private static let body = #"""
        <body>
        <main>
        <header>
        <svg viewBox="0 0 48 48" aria-hidden="true" focusable="false"><path fill="currentColor" d="\#(bird)"/></svg>
        <div><h1>Martlet</h1><p>Speech, word by word as it is made</p></div>
        </header>

        <form class="card" id="form" autocomplete="off">
        <label for="text">Text</label>
        <textarea id="text" required maxlength="60000" aria-describedby="keys" spellcheck="true">The bird on the crest \#
        never lands. It sleeps on the wing, and wakes a little higher.</textarea>
        <div class="chips" role="group" aria-label="Example texts" id="examples"></div>
        <div class="grid">
        <div><label for="voice">Voice</label><select id="voice"><option value="">Standard</option></select></div>
        <div><label for="language">Language</label><select id="language"></select></div>
        </div>
        <details id="more">
        <summary>More settings</summary>
        <div class="grid">
        <div><label for="seed">Seed</label><input id="seed" inputmode="numeric" pattern="[0-9]*" value="0"
          aria-describedby="seedHint"></div>
        <div><label for="temperature">Temperature</label><input id="temperature" inputmode="decimal"
          placeholder="the model’s own"></div>
        </div>
        <p class="hint" id="seedHint">The same text, voice and seed give the same bytes.</p>
        <div class="grid"><div><label for="instructions">How to speak</label><textarea id="instructions"
          placeholder="softly, as if telling a secret"></textarea></div></div>
        <div class="grid" id="keyBox" hidden><div><label for="key">API key</label><input id="key"
          type="password" autocomplete="off"></div></div>
        </details>
        <div class="row">
        <button class="main" id="speak" type="submit">Speak</button>
        <button id="again" type="button" hidden>Play again</button>
        <a class="button" id="download" hidden download="martlet.wav">Download WAV</a>
        <p id="status" role="status"></p>
        </div>
        <p id="problem" role="alert"></p>
        <p class="hint keys" id="keys">Ctrl or ⌘ with Enter speaks, Escape stops.</p>
        </form>

        <section class="card" aria-label="The speech">
        <div class="screen">
        <canvas id="wave" role="img" aria-label="Waveform: nothing yet"></canvas>
        <canvas id="spectrum" role="img" aria-label="Spectrogram: nothing yet"></canvas>
        </div>
        <dl>
        <div><dt>First audio</dt><dd id="first">–</dd></div>
        <div><dt><abbr title="computing time by speaking time; below 1 is faster than speech">Real-time factor</abbr></dt>
        <dd id="rtf">–</dd></div>
        <div><dt>Audio</dt><dd id="length">–</dd></div>
        <div><dt>Gaps</dt><dd id="gaps">–</dd></div>
        </dl>
        <p class="hash" id="hash" hidden></p>
        </section>

        <section class="card" id="clone" hidden>
        <details>
        <summary>Make a voice from a recording</summary>
        <p class="hint">Five to fifteen seconds of one person, close to the microphone, in a quiet room. Record only
        people who agree.</p>
        <div class="grid"><div><label for="name">Name of the voice</label><input id="name" maxlength="64"
          pattern="[A-Za-z0-9][A-Za-z0-9_\-]*" placeholder="letters, digits, - and _"></div></div>
        <div class="row">
        <button id="record" type="button" aria-pressed="false">Record</button>
        <meter id="level" min="0" max="1" value="0" aria-label="Recording level" hidden></meter>
        <span id="clock" aria-hidden="true"></span>
        <div><label for="file">or take a file</label><input id="file" type="file" accept="audio/*"></div>
        </div>
        <audio id="preview" controls hidden></audio>
        <div class="grid"><div><label for="transcript">What is said in it: the voice comes out closer</label>
        <textarea id="transcript"></textarea></div></div>
        <div class="row"><button class="main" id="save" type="button" disabled>Save the voice</button>
        <p id="cloneStatus" role="status" class="hint"></p></div>
        </details>
        </section>

        <footer><p>Everything happens on this server. <a href="/v1/models">Model</a> · <a href="/metrics">Metrics</a></p>
        </footer>
        </main>
        </body>
        """#
}
