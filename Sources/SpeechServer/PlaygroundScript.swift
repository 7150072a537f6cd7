extension PlaygroundPage {
    /// The page's program.
    static let script = #"""
        "use strict";
        const $ = (id) => document.getElementById(id);
        const sampleHop = 480, fftSize = 1024, bands = 96, widest = 1024, narrowest = 250;
        let rate = 24000;

        // ---- What has been received and played -------------------------------------------------------------------

        /** One speech: its samples as they arrive, what the pictures need of them, and where playback is. */
        class Speech {
          constructor() {
            this.chunks = []; this.count = 0;
            this.tail = new Float32Array(0);      // samples not yet in a picture column
            this.peaks = []; this.columns = [];   // per hop: [lowest, highest]; bands levels 0…255
            this.plays = [];                      // { time: of the audio clock, sample: first one }
            this.gaps = 0; this.isOver = false;
          }
          add(samples) {
            this.chunks.push(samples); this.count += samples.length;
            const joined = new Float32Array(this.tail.length + samples.length);
            joined.set(this.tail); joined.set(samples, this.tail.length);
            let at = 0;
            for (; at + fftSize <= joined.length; at += sampleHop) this.column(joined.subarray(at, at + fftSize));
            this.tail = joined.slice(at);
          }
          column(window) {
            let low = 0, high = 0;
            for (let i = 0; i < sampleHop; i++) { low = Math.min(low, window[i]); high = Math.max(high, window[i]); }
            this.peaks.push([low, high]);
            this.columns.push(spectrum(window));
          }
          samples() {
            const all = new Float32Array(this.count);
            let at = 0;
            for (const chunk of this.chunks) { all.set(chunk, at); at += chunk.length; }
            return all;
          }
          /** The sample that is heard at a time of the audio clock. */
          position(time) {
            let found = 0;
            for (const play of this.plays) {
              if (play.time > time) break;
              found = Math.min(play.sample + (time - play.time) * rate, play.end);
            }
            return found;
          }
        }

        // ---- Spectrum: Hann window, FFT, loudest bin of each band, 70 dB ------------------------------------------

        const hann = Float32Array.from({ length: fftSize }, (_, i) => 0.5 - 0.5 * Math.cos(2 * Math.PI * i / fftSize));
        const edges = Array.from({ length: bands + 1 }, (_, i) => {
          const mel = (hz) => 2595 * Math.log10(1 + hz / 700), hz = (m) => 700 * (10 ** (m / 2595) - 1);
          const low = mel(50), high = mel(11500);
          return hz(low + (high - low) * i / bands) * fftSize / 24000;
        });
        function spectrum(window) {
          const re = new Float32Array(fftSize), im = new Float32Array(fftSize);
          for (let i = 0, j = 0; i < fftSize; i++) {
            re[j] = window[i] * hann[i];
            let bit = fftSize >> 1;
            for (; j & bit; bit >>= 1) j ^= bit;
            j |= bit;
          }
          for (let size = 2; size <= fftSize; size <<= 1) {
            const half = size >> 1, step = -2 * Math.PI / size;
            for (let k = 0; k < half; k++) {
              const c = Math.cos(step * k), s = Math.sin(step * k);
              for (let a = k; a < fftSize; a += size) {
                const b = a + half, x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
                re[b] = re[a] - x; im[b] = im[a] - y; re[a] += x; im[a] += y;
              }
            }
          }
          return Uint8Array.from({ length: bands }, (_, band) => {
            const first = Math.floor(edges[band]), last = Math.max(first + 1, Math.ceil(edges[band + 1]));
            let power = 1e-9;
            for (let i = first; i < last; i++) power = Math.max(power, re[i] * re[i] + im[i] * im[i]);
            return Math.max(0, Math.min(255, (10 * Math.log10(power / 4000) + 62) * 255 / 62));
          });
        }

        // ---- Pictures ----------------------------------------------------------------------------------------------

        let colours = {}, palette = new Uint32Array(256);
        function readColours() {
          const css = getComputedStyle(document.documentElement);
          for (const name of ["screen", "accent", "glow", "ink", "soft", "line"])
            colours[name] = css.getPropertyValue("--" + name).trim();
          const parse = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
          const stops = [colours.screen, colours.screen, colours.accent, colours.glow].map(parse);
          const places = [0, 0.18, 0.62, 1];
          for (let i = 0; i < 256; i++) {
            const x = i / 255;
            let k = 1;
            while (places[k] < x && k < 3) k++;
            const t = (x - places[k - 1]) / (places[k] - places[k - 1]);
            const [r, g, b] = [0, 1, 2].map((c) => Math.round(stops[k - 1][c] + (stops[k][c] - stops[k - 1][c]) * t));
            palette[i] = (255 << 24) | (b << 16) | (g << 8) | r;
          }
        }
        const image = document.createElement("canvas");
        image.width = widest; image.height = bands;
        function fit(canvas) {
          const scale = window.devicePixelRatio || 1;
          const width = Math.round(canvas.clientWidth * scale), height = Math.round(canvas.clientHeight * scale);
          if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
          const pen = canvas.getContext("2d");
          pen.fillStyle = colours.screen;
          pen.fillRect(0, 0, width, height);
          return [pen, width, height, scale];
        }
        function draw() {
          const total = speech ? speech.columns.length : 0;
          const shown = Math.max(narrowest, Math.min(widest, total));
          const heard = speech && audio ? speech.position(audio.currentTime - latency()) / sampleHop : 0;
          const from = Math.max(0, Math.min(total - shown, Math.round(heard - shown * 0.7)));
          const end = Math.min(total, from + shown), played = heard - from;
          const [wave, width, height, scale] = fit($("wave"));
          const middle = height / 2, step = width / shown;
          wave.fillStyle = colours.line;
          wave.fillRect(0, middle - scale / 2, width, scale);
          for (let i = from; i < end; i++) {
            const [low, high] = speech.peaks[i], x = (i - from) * step;
            wave.fillStyle = i < heard ? colours.accent : colours.soft;
            const top = middle - Math.min(1, high * 1.6) * middle, bottom = middle - Math.max(-1, low * 1.6) * middle;
            wave.fillRect(x, top, Math.max(step * 0.8, 1), Math.max(bottom - top, scale));
          }
          const [pen, w, h] = fit($("spectrum"));
          if (end > from) {
            const context = image.getContext("2d"), pixels = context.createImageData(end - from, bands);
            const words = new Uint32Array(pixels.data.buffer);
            for (let i = from; i < end; i++) {
              const column = speech.columns[i];
              for (let band = 0; band < bands; band++)
                words[(bands - 1 - band) * (end - from) + i - from] = palette[column[band]];
            }
            context.putImageData(pixels, 0, 0);
            pen.drawImage(image, 0, 0, end - from, bands, 0, 0, (end - from) * step, h);
          }
          if (total) {
            for (const [p, tall] of [[wave, height], [pen, h]]) {
              if (isPlaying()) { p.fillStyle = colours.glow; p.fillRect(played * step, 0, 2 * scale, tall); }
            }
          }
          const isBusy = Boolean(request) || isPlaying();
          if (isBusy) requestAnimationFrame(draw); else isDrawing = false;
          if (wasBusy !== isBusy) { wasBusy = isBusy; showButtons(); }
        }
        let isDrawing = false, wasBusy = false;
        function startDrawing() { if (!isDrawing) { isDrawing = true; requestAnimationFrame(draw); } }

        // ---- Playing -----------------------------------------------------------------------------------------------

        let audio = null, speech = null, request = null, nextTime = 0, sources = new Set();
        const latency = () => audio.outputLatency || audio.baseLatency || 0;
        const isPlaying = () => Boolean(audio) && sources.size > 0;
        function play(samples, isFirst) {
          const buffer = audio.createBuffer(1, samples.length, rate);
          buffer.copyToChannel(samples, 0);
          const source = audio.createBufferSource();
          source.buffer = buffer;
          source.connect(audio.destination);
          const soonest = audio.currentTime + (isFirst ? 0.06 : 0.01);
          if (nextTime < soonest) { if (!isFirst) speech.gaps++; nextTime = soonest; }
          source.start(nextTime);
          sources.add(source);
          source.onended = () => sources.delete(source);
          const last = speech.plays.at(-1), sample = last ? last.end : 0;
          speech.plays.push({ time: nextTime, sample, end: sample + samples.length });
          nextTime += samples.length / rate;
        }
        function silence() {
          for (const source of sources) { source.onended = null; source.stop(); }
          sources.clear();
        }
        async function openAudio() {
          if (audio && audio.sampleRate !== rate) { await audio.close(); audio = null; }
          audio ??= new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
          if (audio.state === "suspended") await audio.resume();
        }

        // ---- Speaking ----------------------------------------------------------------------------------------------

        const headers = (more = {}) => $("key").value ? { Authorization: "Bearer " + $("key").value, ...more } : more;
        async function check(response) {
          if (response.ok) return response;
          let message = "The server answered " + response.status + ".";
          try { message = (await response.json()).error.message; } catch { /* not JSON */ }
          if (response.status === 401) { $("more").open = true; $("key").focus(); }
          throw new Error(message);
        }
        function fields() {
          const body = { input: $("text").value, response_format: "pcm" };
          if ($("voice").value) body.voice = $("voice").value;
          if ($("language").value) body.language = $("language").value;
          if ($("seed").value.trim()) body.seed = Number($("seed").value);
          if ($("temperature").value.trim()) body.temperature = Number($("temperature").value.replace(",", "."));
          if ($("instructions").value.trim()) body.instructions = $("instructions").value.trim();
          if (Number.isNaN(body.temperature)) throw new Error("The temperature is not a number.");
          if (Number.isNaN(body.seed)) throw new Error("The seed is not a number.");
          return body;
        }
        const seconds = (value, places = 2) => value.toFixed(places) + " s";
        async function speak() {
          if (!$("text").value.trim()) { $("text").focus(); return; }
          stop("");
          $("problem").textContent = "";
          for (const id of ["first", "rtf", "length", "gaps"]) $(id).textContent = "–";
          $("hash").hidden = true; $("download").hidden = true; $("again").hidden = true;
          const mine = request = new AbortController();
          showButtons();
          try {
            const body = fields();
            await openAudio();
            speech = new Speech();
            const current = speech;
            startDrawing();
            say("Waiting for the first audio …");
            const start = performance.now();
            const response = await check(await fetch("/v1/audio/speech", {
              method: "POST", headers: headers({ "Content-Type": "application/json" }), body: JSON.stringify(body),
              signal: mine.signal,
            }));
            const reader = response.body.getReader();
            let odd = new Uint8Array(0), isFirst = true;
            for (;;) {
              const { done, value } = await reader.read();
              if (done) break;
              const bytes = new Uint8Array(odd.length + value.length);
              bytes.set(odd); bytes.set(value, odd.length);
              const count = bytes.length >> 1, view = new DataView(bytes.buffer);
              odd = bytes.slice(count * 2);
              if (!count) continue;
              const samples = Float32Array.from({ length: count }, (_, i) => view.getInt16(2 * i, true) / 32768);
              if (isFirst) {
                const wait = performance.now() - start;
                $("first").textContent = Math.round(wait) + " ms";
                say("Speaking, after " + Math.round(wait) + " milliseconds.");
              }
              play(samples, isFirst);
              current.add(samples);
              isFirst = false;
              showTimes(current, start);
            }
            current.isOver = true;
            showTimes(current, start);
            await finish(current, (performance.now() - start) / 1000);
          } catch (error) {
            if (error.name !== "AbortError") { $("problem").textContent = error.message; say(""); silence(); }
          } finally {
            if (request === mine) request = null;
            showButtons();
          }
        }
        function showTimes(current, start) {
          const length = current.count / rate;
          $("length").textContent = seconds(length);
          if (length) $("rtf").textContent = ((performance.now() - start) / 1000 / length).toFixed(2);
          $("gaps").textContent = String(current.gaps);
        }
        async function finish(current, elapsed) {
          const length = current.count / rate;
          if (!current.count) { say("No audio came."); return; }
          current.add(new Float32Array(fftSize));   // lets the last samples into the pictures
          current.count -= fftSize; current.chunks.pop();
          const bytes = wav(current.samples());
          if ($("download").href) URL.revokeObjectURL($("download").href);
          $("download").href = URL.createObjectURL(new Blob([bytes], { type: "audio/wav" }));
          $("download").hidden = false; $("again").hidden = false;
          say("Done: " + seconds(length, 1) + " of speech, made in " + seconds(elapsed, 1) + ".");
          const loudest = Math.max(...current.peaks.map(([low, high]) => Math.max(-low, high)));
          $("wave").setAttribute("aria-label", "Waveform of " + seconds(length, 1) + ", peak " + loudest.toFixed(2));
          $("spectrum").setAttribute("aria-label", "Spectrogram of " + seconds(length, 1) + ", 50 hertz to 11 kilohertz");
          if (window.crypto.subtle) {
            const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes.slice(44)));
            $("hash").textContent = "PCM SHA-256 " + Array.from(hash, (b) => b.toString(16).padStart(2, "0")).join("");
            $("hash").hidden = false;
          }
        }
        function stop(text = "Stopped.") {
          if (request) { request.abort(); request = null; }
          silence();
          say(text);
          showButtons();
        }
        async function again() {
          if (!speech || !speech.count) return;
          silence();
          await openAudio();
          speech.plays = []; nextTime = 0;
          play(speech.samples(), true);
          startDrawing();
          showButtons();
        }
        const say = (text) => { $("status").textContent = text; };
        function showButtons() {
          const isBusy = Boolean(request) || isPlaying();
          $("speak").textContent = isBusy ? "Stop" : "Speak";
          $("speak").classList.toggle("stop", isBusy);
        }
        function wav(samples) {
          const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
          const text = (at, value) => { for (let i = 0; i < value.length; i++) view.setUint8(at + i, value.charCodeAt(i)); };
          text(0, "RIFF"); view.setUint32(4, 36 + samples.length * 2, true); text(8, "WAVEfmt ");
          view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true);
          view.setUint32(24, rate, true); view.setUint32(28, rate * 2, true); view.setUint16(32, 2, true);
          view.setUint16(34, 16, true); text(36, "data"); view.setUint32(40, samples.length * 2, true);
          samples.forEach((s, i) => view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(s * 32768))), true));
          return new Uint8Array(view.buffer);
        }

        // ---- Voices and models -------------------------------------------------------------------------------------

        const examples = [
          ["A greeting", "Good morning! The kettle is on, and the news can wait."],
          ["Numbers", "Platform nine, the 10:42 to Lisbon, leaves in three minutes."],
          ["A long breath", "When the wind turned, the whole flock turned with it, every wing a little late, " +
            "every wing in time, and the sky above the harbour folded like a page."],
        ];
        function option(value, text) {
          const element = document.createElement("option");
          element.value = value; element.textContent = text;
          return element;
        }
        async function load(chosen) {
          try {
            const model = await (await check(await fetch("/playground/model"))).json();
            rate = model.sample_rate;
            $("clone").hidden = !model.takes_voices;
            $("keyBox").hidden = !model.needs_key;
            $("language").replaceChildren(...model.languages.map((name) =>
              option(name, name === "auto" ? "As the text is" : name[0].toUpperCase() + name.slice(1))));
            if (model.needs_key && !$("key").value) {
              $("more").open = true; say("This server asks for a key."); return;
            }
            const list = await (await check(await fetch("/v1/audio/voices", { headers: headers() }))).json();
            const voices = list.data.map((voice) => voice.id);
            const kept = chosen ?? $("voice").value;
            $("voice").replaceChildren(option("", "Standard"), ...voices.map((name) => option(name, name)));
            $("voice").value = voices.includes(kept) ? kept : "";
            $("problem").textContent = "";
          } catch (error) { $("problem").textContent = error.message; }
        }

        // ---- A voice from a recording ------------------------------------------------------------------------------

        let recorder = null, recording = null;
        async function decode(blob) {
          const context = new AudioContext({ sampleRate: 24000 });
          try {
            const decoded = await context.decodeAudioData(await blob.arrayBuffer());
            const mono = new Float32Array(decoded.length);
            for (let c = 0; c < decoded.numberOfChannels; c++)
              decoded.getChannelData(c).forEach((s, i) => { mono[i] += s / decoded.numberOfChannels; });
            return mono;
          } finally { await context.close(); }
        }
        async function take(blob) {
          try {
            const samples = await decode(blob), kept = rate;
            rate = 24000;
            recording = new Blob([wav(samples)], { type: "audio/wav" });
            rate = kept;
            if ($("preview").src) URL.revokeObjectURL($("preview").src);
            $("preview").src = URL.createObjectURL(recording);
            $("preview").hidden = false; $("save").disabled = false;
            tell(seconds(samples.length / 24000, 1) + " recorded.");
          } catch { tell("This recording cannot be read."); }
        }
        const tell = (text) => { $("cloneStatus").textContent = text; };
        async function record() {
          if (recorder) { recorder.stop(); return; }
          let stream;
          try { stream = await navigator.mediaDevices.getUserMedia({ audio: true }); } catch {
            tell("No microphone: allow it for this page, which must come from localhost or by https."); return;
          }
          const parts = [], context = new AudioContext(), analyser = context.createAnalyser();
          context.createMediaStreamSource(stream).connect(analyser);
          recorder = new MediaRecorder(stream);
          const start = performance.now(), data = new Float32Array(analyser.fftSize);
          $("record").textContent = "Stop recording"; $("record").setAttribute("aria-pressed", "true");
          $("level").hidden = false;
          tell("Recording.");
          const timer = setInterval(() => {
            analyser.getFloatTimeDomainData(data);
            $("level").value = Math.min(1, Math.max(...data.map(Math.abs)));
            const elapsed = (performance.now() - start) / 1000;
            $("clock").textContent = seconds(elapsed, 1);
            if (elapsed > 30 && recorder) recorder.stop();
          }, 100);
          recorder.ondataavailable = (event) => parts.push(event.data);
          recorder.onstop = async () => {
            clearInterval(timer);
            recorder = null;
            stream.getTracks().forEach((track) => track.stop());
            await context.close();
            $("record").textContent = "Record"; $("record").setAttribute("aria-pressed", "false");
            $("level").hidden = true; $("clock").textContent = "";
            await take(new Blob(parts));
          };
          recorder.start();
        }
        async function save() {
          const name = $("name").value.trim();
          if (!name || !$("name").checkValidity()) { tell("Give the voice a name: letters, digits, - and _."); $("name").focus(); return; }
          $("save").disabled = true;
          tell("Learning the voice …");
          try {
            const form = new FormData();
            form.append("name", name);
            form.append("audio_sample", recording, name + ".wav");
            if ($("transcript").value.trim()) form.append("ref_text", $("transcript").value.trim());
            await check(await fetch("/v1/audio/voices", { method: "POST", headers: headers(), body: form }));
            await load(name.toLowerCase());
            tell("Saved; it is chosen above.");
          } catch (error) { tell(error.message); }
          $("save").disabled = false;
        }

        // ---- Beginning ---------------------------------------------------------------------------------------------

        $("form").addEventListener("submit", (event) => {
          event.preventDefault();
          if (request || isPlaying()) stop(); else speak();
        });
        document.addEventListener("keydown", (event) => {
          if (event.key === "Escape" && (request || isPlaying())) stop();
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); speak(); }
        });
        $("again").addEventListener("click", again);
        $("record").addEventListener("click", record);
        $("file").addEventListener("change", () => { if ($("file").files[0]) take($("file").files[0]); });
        $("save").addEventListener("click", save);
        $("key").value = sessionStorage.getItem("key") ?? "";
        $("key").addEventListener("change", () => { sessionStorage.setItem("key", $("key").value); load(); });
        for (const [name, text] of examples) {
          const button = document.createElement("button");
          button.type = "button"; button.textContent = name;
          button.addEventListener("click", () => { $("text").value = text; $("text").focus(); });
          $("examples").append(button);
        }
        matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); startDrawing(); });
        window.addEventListener("resize", startDrawing);
        readColours();
        startDrawing();
        load();
        """#
}
