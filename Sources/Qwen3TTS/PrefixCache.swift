/// Beginnings of prompts that were read before, so that the next request of a voice skips that work.
///
/// Keys and values of a row depend on the rows before it and on nothing else; so copies change no byte. Belongs to the
/// thread that drives the generation.
final class PrefixCache {
    private struct Prompt {
        let rows: [PromptRow]
        let clone: ClonePrompt?
        let cache: KVCache
    }

    /// Most recently used last.
    private var prompts: [Prompt] = []
    private static let promptLimit = 4
    /// A shorter beginning is not worth a copy.
    private static let minimumRows = 4

    /// Copies the longest beginning of `rows` that is known; the last row is always left to be read.
    /// - Returns: how many rows were copied.
    func copyPrefix(of rows: [PromptRow], clone: ClonePrompt?, into cache: KVCache) -> Int {
        var best: (index: Int, length: Int)?
        for (index, prompt) in prompts.enumerated() where prompt.clone == clone {
            let length = min(zip(prompt.rows, rows).prefix { $0 == $1 }.count, rows.count - 1)
            if length >= Self.minimumRows, length > best?.length ?? 0 { best = (index, length) }
        }
        guard let best else { return 0 }
        let prompt = prompts.remove(at: best.index)
        prompts.append(prompt)
        cache.copy(prompt.cache, positions: best.length)
        return best.length
    }

    /// Keeps a prompt that has just been read entirely, unless its beginning was copied from one that is kept.
    func keep(_ rows: [PromptRow], clone: ClonePrompt?, cache: KVCache, reused: Int) {
        guard rows.count >= Self.minimumRows, reused == 0 else { return }
        prompts.append(Prompt(rows: rows, clone: clone, cache: cache.copy()))
        if prompts.count > Self.promptLimit { prompts.removeFirst() }
    }
}

/// Decoder states at the end of recordings that were heard before, so that the next request of a cloned voice need not
/// hear its recording again.
///
/// A state depends on the codes that were heard and on nothing else; so copies change no byte. Belongs to the thread that
/// drives the decoder.
final class ReferenceCache {
    private struct Reference {
        let codes: [Int32]
        let state: CodecDecoder.State
    }

    /// Most recently used last.
    private var references: [Reference] = []
    private static let limit = 8

    /// Copies the state of a decoder that has heard `codes`; false if it is not known.
    func copy(_ codes: [Int32], into state: CodecDecoder.State) -> Bool {
        guard let index = references.firstIndex(where: { $0.codes == codes }) else { return false }
        let reference = references.remove(at: index)
        references.append(reference)
        state.copy(reference.state)
        return true
    }

    /// Keeps the state of a decoder that has heard `codes` and nothing else.
    func keep(_ codes: [Int32], state: CodecDecoder.State) {
        references.append(Reference(codes: codes, state: state.copy()))
        if references.count > Self.limit { references.removeFirst() }
    }
}
