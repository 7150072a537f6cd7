import SpeechServer
import Testing

/// What `/v1/models` shows says nothing of where files lie.
@Suite struct ModelNameTests {
    @Test(
        arguments: [
            ("Qwen/Voice", "/home/a/.cache/hub/models--Qwen--Voice/snapshots/12ab", ["Qwen/Voice", "Voice"]),
            ("Qwen/Voice@main", "/cache/models--Qwen--Voice/snapshots/12ab", ["Qwen/Voice", "Voice"]),
            (
                "/cache/models--Qwen--Voice/snapshots/12ab", "/cache/models--Qwen--Voice/snapshots/12ab",
                ["Qwen/Voice", "Voice"]
            ),
            ("/srv/models/my-voice/", "/srv/models/my-voice/", ["my-voice"]),
            ("models/my-voice", "models/my-voice", ["my-voice"]),
            (nil, "/srv/models/../other", ["other"]),
            ("/", "/", ["martlet"]),
        ] as [(String?, String, [String])])
    func namesAreNoPaths(asked: String?, folder: String, names: [String]) {
        #expect(ServerOptions.modelNames(asked: asked, folder: folder) == names)
    }
}
