/// All settings. A new row also needs its flag in the command line's `SettingOptions`; a test says so.
extension Setting {
    private static let deep = "TTS_DEEP_STREAM_"
    private static let longest = 1e6

    // MARK: The model

    /// Which model.
    public static let model = Setting(
        "model", .text, "A model folder, or the name of a pulled model such as ORG/NAME.")
    /// Storage of weights.
    public static let weights = Setting(
        "weights", .choice(["bf16", "q8", "q4"]), standard: "bf16", "Storage of the language model's weights.")
    /// Threads of the CPU stages.
    public static let threads = Setting(
        "threads", .integer(1...256), "Threads of the CPU's stages; all processors if unset.")
    /// Where codes are decoded.
    public static let device = Setting(
        "device", .device, standard: "cpu", aliases: [deep + "DEVICE"], "Where codes are decoded.")
    /// Where codes are generated.
    public static let codegenDevice = Setting(
        "codegen-device", .device, aliases: [deep + "CODEGEN_DEVICE"],
        "Where codes are generated; the same device if unset.")
    /// Full precision of code generation.
    public static let codegenFP32 = Setting(
        "codegen-fp32", .toggle, standard: "0", aliases: [deep + "CODEGEN_FP32"],
        "Full precision of code generation: needs weights as in the checkpoint, bf16. Arithmetic does not change: float32, "
            + "on a GPU with activations of 16 significant bits.")
    /// Full precision of the decoder.
    public static let decoderFP32 = Setting(
        "decoder-fp32", .toggle, standard: "0", aliases: [deep + "DECODER_FP32"],
        "Full precision of the decoder on a GPU: as good as float32, at a quarter of the speed; 0 is float16 with float32 sums.",
        insteadOnCPU: "the CPU's decoder always computes in float32")

    // MARK: Generation beside decoding

    /// Generation in a process of its own.
    public static let workerProcess = Setting(
        "worker-process", .toggle, standard: "0", aliases: [deep + "PROCESS"],
        "Code generation in a worker process of its own instead of a thread.")
    /// Seconds for an answer of that process.
    public static let workerTimeout = Setting(
        "worker-timeout", .number(0...longest), standard: "30",
        "Seconds for a step of the worker process, after which it is killed and started again; 0 sets no bound.")
    /// Seconds for it to get ready.
    public static let workerLoadTimeout = Setting(
        "worker-load-timeout", .number(0...longest), standard: "600",
        "Seconds for the worker process to load its weights; 0 sets no bound.")
    /// Codec frames of a packet.
    public static let packetTokens = Setting(
        "packet-tokens", .integer(1...1024), aliases: [deep + "PACKET_TOKENS"],
        "Codec frames of a packet; if unset 'serve' starts with one and grows, experiments take 4.")
    /// Frames of context of the windowed decoder.
    public static let leftContext = Setting(
        "left-context", .integer(0...1024), standard: "25", aliases: [deep + "LEFT_CONTEXT"],
        "Frames of context of the windowed decoder.")
    /// Stateful or windowed.
    public static let decodeMode = Setting(
        "decode-mode", .choice(["incremental", "windowed"]), standard: "incremental", aliases: [deep + "DECODE_MODE"],
        "The decoder carries its state on, or decodes anew after some frames of context.")
    /// Overlap at once or later.
    public static let prefillPackets = Setting(
        "prefill-packets", .integer(0...64), standard: "1", aliases: [deep + "PREFILL_PACKETS"],
        "Packets that are out before generation and decoding overlap.")
    /// How generation and decoding share a device.
    public static let syncMode = Setting(
        "sync-mode", .choice(["none", "sync", "event", "phase"]), aliases: [deep + "SYNC_MODE"],
        "How generation and decoding share one device: freely, waiting for all, for an event a packet, or by phases; none on a "
            + "GPU, sync on the CPU if unset.")
    /// The host waits for each code step.
    public static let codegenBlocking = Setting(
        "codegen-blocking", .toggle, standard: "0", aliases: [deep + "CODEGEN_BLOCKING"],
        "The host waits for each code step.",
        instead: "a code step is done when it returns; phase sync is off while this is 1")
    /// A part of the decoder only.
    public static let dummyDecoder = Setting(
        "dummy-decoder", .choice(["none", "pre_transformer", "conv_only", "noop"]), standard: "none",
        aliases: [deep + "DUMMY_DECODER"], "Run a part of the decoder only, to see which stage disturbs the codes.")
    /// Decode less often.
    public static let decodeEvery = Setting(
        "decode-every", .integer(1...64), standard: "1", aliases: [deep + "DECODE_EVERY"],
        "Decode once every n packets.")

    // MARK: Choice of codes

    /// Greedy or sampled.
    public static let policy = Setting(
        "deterministic-policy", .choice(["seeded", "greedy"]), standard: "seeded",
        aliases: [deep + "DETERMINISTIC_POLICY"],
        "Sample with a seed, or always take the likeliest code.")
    /// Where seeds come from.
    public static let seedMode = Setting(
        "seed-mode", .choice(["fixed", "content"]), standard: "fixed", aliases: [deep + "SEED_MODE"],
        "The seed itself, or one derived from it and the request's text, voice, language and instruction.")
    /// The seed.
    public static let seed = Setting(
        "seed", .unsigned, standard: "0", aliases: [deep + "SEED"],
        "Seed of the random numbers of requests that name none.")

    // MARK: What is logged and kept

    /// Counters of each request.
    public static let packetTrace = Setting(
        "packet-trace", .toggle, standard: "0", aliases: [deep + "PACKET_TRACE"],
        "Log queue_wait_ms, decode_calls, codes_frames_max, pcm_samples_total, pcm_samples_max of each request.")
    /// Times of each request.
    public static let metrics = Setting(
        "metrics", .toggle, standard: "0", aliases: [deep + "METRICS"], "Log the times of each packet.")
    /// Times and overlap of each packet.
    public static let traceTiming = Setting(
        "trace-timing", .toggle, standard: "0", aliases: [deep + "TRACE_TIMING"],
        "Log when each packet was generated and decoded, and where the two overlapped.")
    /// Likeliest codes are logged.
    public static let topK = Setting(
        "debug-topk", .toggle, standard: "0", aliases: ["TTS_CODEGEN_DEBUG_TOPK"],
        "Keep the likeliest codes and logits of each step: topk_<tag>.json beside the codes.")
    /// The first step of them.
    public static let topKStart = Setting(
        "debug-topk-step-start", .integer(0...1_000_000), standard: "0",
        aliases: ["TTS_CODEGEN_DEBUG_STEP_START", "TTS_CODEGEN_DEBUG_TOPK_STEP_START"], "The first step kept.")
    /// The last step of them.
    public static let topKEnd = Setting(
        "debug-topk-step-end", .integer(0...1_000_000), standard: "100",
        aliases: ["TTS_CODEGEN_DEBUG_STEP_END", "TTS_CODEGEN_DEBUG_TOPK_STEP_END"], "The last step kept.")
    /// How many of each step.
    public static let topKCount = Setting(
        "debug-topk-n", .integer(1...100), standard: "2",
        aliases: ["TTS_CODEGEN_DEBUG_TOPK_N", "TTS_CODEGEN_DEBUG_TOPK_TOPK_N"], "Codes kept of each step.")
    /// Codes are kept.
    public static let codeDump = Setting(
        "code-dump", .toggle, standard: "0", aliases: ["TTS_CODE_DUMP_ENABLE"],
        "Keep codes_<tag>.safetensors and meta_<tag>.json of each request.")
    /// Where.
    public static let codeDumpDirectory = Setting(
        "code-dump-dir", .text, standard: "codes", aliases: ["TTS_CODE_DUMP_DIR"], "The folder of the kept codes.")
    /// What the back end is.
    public static let backendTrace = Setting(
        "backend-trace", .toggle, standard: "0", aliases: ["TTS_CUDNN_TRACE"],
        "Log what the back end is, its version and what is switched on.")

    // MARK: The old stack's back end

    /// cuDNN tries algorithms.
    public static let cudnnBenchmark = Setting(
        "cudnn-benchmark", .toggle, aliases: ["TTS_CUDNN_BENCHMARK"], "Try out cuDNN's algorithms.",
        instead: "no library chooses an algorithm at run time; every sum has one order, fixed by the layer's shape")
    /// cuDNN's deterministic algorithms.
    public static let cudnnDeterministic = Setting(
        "cudnn-deterministic", .toggle, aliases: ["TTS_CUDNN_DETERMINISTIC"], "Only cuDNN's deterministic algorithms.",
        instead: "everything is deterministic: the same request gives the same bytes")
    /// TF32 in cuDNN.
    public static let cudnnTF32 = Setting(
        "cudnn-allow-tf32", .toggle, aliases: ["TTS_CUDNN_ALLOW_TF32"], "TF32 in cuDNN's convolutions.",
        instead: "convolutions sum in float32, never in TF32")
    /// TF32 in matrix products.
    public static let matmulTF32 = Setting(
        "cuda-matmul-allow-tf32", .toggle, aliases: ["TTS_CUDA_MATMUL_ALLOW_TF32"], "TF32 in matrix products.",
        instead: "matrix products sum in float32, never in TF32")
    private static let ownForm =
        "a GPU takes a step in one kernel where it can, and the engine chooses; --backend-trace says what it does"
    /// CUDA graph of the talker.
    public static let graphTalker = Setting(
        "cuda-graph-talker", .toggle, aliases: ["TTS_CODEGEN_CUDAGRAPH_TALKER"], "A CUDA graph of the talker.",
        instead: ownForm)
    /// CUDA graph of the code predictor.
    public static let graphPredictor = Setting(
        "cuda-graph-predictor", .toggle, aliases: ["TTS_CODEGEN_CUDAGRAPH_CP"], "A CUDA graph of the code predictor.",
        instead: ownForm)
    /// CUDA graphs of the decoder.
    public static let graphDecoder = Setting(
        "cuda-graph-decoder", .toggle, standard: "1", aliases: ["TTS_DECODER_CUDAGRAPH"],
        "CUDA graphs of the decoder: with 0 its kernels are launched one by one.",
        insteadOnCPU: "the CPU launches no kernels")

    // MARK: Ends of run-aways

    /// Packets of silence.
    public static let silencePackets = Setting(
        "silence-packets", .integer(0...100_000), aliases: [deep + "SILENCE_PACKETS"],
        "End after so many packets of silence in a row, each of packet-tokens frames (4 if unset); 0 never does. If "
            + "unset, 100 frames.")
    /// What silence is.
    public static let silenceRMS = Setting(
        "silence-rms", .number(0...1), aliases: [deep + "SILENCE_RMS"],
        "A frame below this level, the root of its mean square, is silence. If unset, one without a sample above 0.001."
    )
    /// Seconds a character.
    public static let maxSecondsPerCharacter = Setting(
        "max-sec-per-char", .number(0...longest), aliases: [deep + "MAX_SEC_PER_CHAR"],
        "End after so many seconds for each character of the text; 0 or unset leaves it to the 16 frames a text token.")
    /// But at least.
    public static let maxSecondsMinimum = Setting(
        "max-sec-min", .number(0...longest), standard: "10", aliases: [deep + "MAX_SEC_MIN"],
        "Seconds that every text may take, whatever max-sec-per-char gives.")
    /// Seconds of a request.
    public static let requestTimeout = Setting(
        "request-timeout", .number(0...longest), aliases: [deep + "REQUEST_TIMEOUT_S"],
        "Seconds after which a request is ended; 0 or unset sets no bound.")
    /// Seconds without progress.
    public static let idleTimeout = Setting(
        "idle-timeout", .number(0...longest), aliases: [deep + "IDLE_TIMEOUT_S"],
        "Seconds after which a request is ended whose text does not come or whose audio is not read. If unset, 300 and "
            + "60.")

    // MARK: Openers

    /// Openers are kept.
    public static let starterCache = Setting(
        "starter-cache", .toggle, standard: "0", aliases: ["TTS_STARTER_CACHE_ENABLE"],
        "Keep the audio of finished short utterances: the same request again is answered from it, to the same bytes.")
    /// Which are made at the start.
    public static let starterTexts = Setting(
        "starter-cache-texts", .list, aliases: ["TTS_STARTER_CACHE_TEXTS"],
        "Openers that are spoken at the start, so that they are there for the first who asks; parted by |.")

    // MARK: The server

    /// Address to listen on.
    public static let host = Setting(
        "host", .text, standard: "127.0.0.1", "Address to listen on; 0.0.0.0 opens the server to the network.")
    /// Port to listen on.
    public static let port = Setting(
        "port", .integer(0...65_535), standard: "9000", "Port to listen on; 0 takes a free one.")
    /// Size of a chunk.
    public static let streamChunk = Setting(
        "stream-chunk-ms", .number(1...10_000), standard: "30", aliases: ["TTS_STREAM_CHUNK_MS"],
        "Milliseconds of audio in one chunk of /tts/stream.")
    /// Where experiments send their requests.
    public static let server = Setting(
        "server", .text, "Experiments drive the server at this URL instead of an engine in the process.")

    /// Every row, in the order of `martlet config`.
    public static let all = [
        model, weights, threads, device, codegenDevice, codegenFP32, decoderFP32, workerProcess, workerTimeout,
        workerLoadTimeout, packetTokens,
        leftContext, decodeMode, prefillPackets, syncMode, codegenBlocking, dummyDecoder, decodeEvery, policy, seedMode,
        seed, packetTrace, metrics, traceTiming, topK, topKStart, topKEnd, topKCount, codeDump, codeDumpDirectory,
        backendTrace, cudnnBenchmark, cudnnDeterministic, cudnnTF32, matmulTF32, graphTalker, graphPredictor,
        graphDecoder, silencePackets, silenceRMS, maxSecondsPerCharacter, maxSecondsMinimum, requestTimeout,
        idleTimeout, starterCache, starterTexts, host, port, streamChunk, server,
    ]

    /// Variables of the environment that are no settings: a file would be too late for them, or not the place.
    static let otherVariables: Set<String> = [
        "MARTLET_CONFIG", "MARTLET_API_KEY", "MARTLET_CACHE", "MARTLET_ISA", "MARTLET_NVRTC",
    ]
}
