import Tensors

#if canImport(FoundationEssentials)
    import FoundationEssentials
#else
    import Foundation
#endif

/// Quantised copies of a checkpoint's matrices, made once and kept in the user's cache folder.
enum QuantizedWeights {
    /// Raised when the packed formats change.
    private static let version = "2"

    /// The quantised matrices of the talker and the code predictor, from the cache or made now.
    ///
    /// Where the cache cannot be written (a full disk, a read-only home), they are made in a temporary file that lives
    /// as long as the model.
    static func open(for file: SafetensorsFile, format: WeightFormat, pool: ThreadPool) throws(TensorError)
        -> SafetensorsFile
    {
        let identity = identity(of: file)
        let names = matrices(in: file)
        let folder = CacheFolder.weights
        let path = "\(folder)/\(identity.hash)-\(format.rawValue).safetensors"
        if let cached = try? SafetensorsFile(path: path), cached.metadata["source"] == identity.description,
            cached.metadata["format"] == "\(format.rawValue).\(version)", names.allSatisfy({ cached[$0] != nil })
        {
            return cached
        }
        var writer = SafetensorsWriter(metadata: [
            "source": identity.description, "format": "\(format.rawValue).\(version)",
        ])
        for name in names {
            guard let view = file[name] else { continue }
            let size = Linear.quantizedSize(format, outputs: view.shape[0], inputs: view.shape[1])
            let memory = FloatBuffer(count: (size + 3) / 4)
            try Linear.quantize(view, format: format, into: memory.pointer, pool: pool)
            writer.add(name, bytes: UnsafeRawBufferPointer(start: memory.pointer, count: size), owner: memory)
        }
        do throws(TensorError) {
            try? FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            try writer.write(to: path)
            return try SafetensorsFile(path: path)
        } catch {
            let temporary = FileManager.default.temporaryDirectory.path + "/martlet-\(UUID().uuidString).safetensors"
            try writer.write(to: temporary)
            defer { try? FileManager.default.removeItem(atPath: temporary) }
            return try SafetensorsFile(path: temporary)
        }
    }

    /// Every matrix that a frame multiplies by; embedding tables and the text projection are not among them.
    private static func matrices(in file: SafetensorsFile) -> [String] {
        file.names.filter { name in
            guard name.hasPrefix("talker."), name.hasSuffix(".weight"), file[name]?.shape.count == 2 else {
                return false
            }
            return name.contains("_proj.") || name.contains("codec_head") || name.contains("lm_head")
                || name.contains("small_to_mtp_projection")
        }
    }

    /// What the cached file must have been made from: path, size and time of change of the checkpoint.
    private static func identity(of file: SafetensorsFile) -> (description: String, hash: String) {
        let path = URL(fileURLWithPath: file.path).resolvingSymlinksInPath().path
        let changed = (try? FileManager.default.attributesOfItem(atPath: path))?[.modificationDate] as? Date
        let description = "\(path) \(file.byteCount) \(changed?.timeIntervalSince1970 ?? 0)"
        var digest = FNV1a()
        digest.add(description.utf8)
        return (description, String(digest.value, radix: 16))
    }
}
