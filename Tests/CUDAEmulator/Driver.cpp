#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "CUDAEmulator.h"
#include "Kernels.h"
#include "Threads.h"

using emulator::Kernel;
using emulator::Launch;

namespace {

enum {
    INVALID_VALUE = 1,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    COOPERATIVE_TOO_LARGE = 720,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

const size_t shared_limit = 227 << 10;
const unsigned char canary = 0xC5;

/// Memory of a card: unreadable pages before and behind, and a canary up to the next multiple of 256 bytes, as the
/// driver aligns.
struct Allocation {
    int card;
    char *map;
    size_t map_bytes;
    char *address;
    size_t bytes;
    size_t slack() const { return (bytes + 255) / 256 * 256 - bytes; }
};

struct Stream;

/// What a stream was told while it was recorded: each is issued anew, to any stream, when the graph is launched.
struct Graph {
    std::vector<std::function<mk_cu_result(mk_cu_stream)>> nodes;
    bool valid = true;
};

struct Event {
    /// Where it was recorded, and whether that has been reached.
    Stream *stream = nullptr;
    long recorded = 0, reached = 0;
    std::chrono::steady_clock::time_point time;
};

/// What was issued and has not run: it runs when somebody waits for it, as late as may be.
struct Stream {
    int card;
    std::deque<std::function<void()>> pending;
    std::unique_ptr<Graph> recording;
};

struct Function {
    int card;
    const Kernel *kernel;
    size_t shared_bytes;
};

struct Card {
    mk_emulated_card properties;
    /// Held by every call: threads that share a card take turns.
    std::recursive_mutex turn;
    size_t used = 0;
    long launches = 0, graph_launches = 0;
    int launches_until_failure = -1;
    int failure = 0;
    /// Allocations that end before a multiple of 256 bytes.
    std::map<uintptr_t, Allocation> ragged;
    /// A sticky error, and what it says.
    int error = 0;
    std::string message;
    std::vector<std::unique_ptr<Stream>> streams;
    /// How often the context is held; with the last one everything on the card goes, an error as well.
    int contexts = 0;
};

std::mutex lock;
// Ordered by address; never taken while a kernel runs, but by the handler of its fault. Neither ends with the process:
// engines of tests that are over may still be giving their streams back then.
std::map<uintptr_t, Allocation> &allocations = *new std::map<uintptr_t, Allocation>;
std::deque<Card> &cards = *new std::deque<Card>;

thread_local int current_card = -1;
thread_local std::string last_error;

Card *card_of(int number) {
    std::lock_guard<std::mutex> hold(lock);
    return number >= 0 && number < (int)cards.size() ? &cards[number] : nullptr;
}

Card *current() { return card_of(current_card); }

typedef std::unique_lock<std::recursive_mutex> Turn;

Turn turn_of(Card *card) { return card ? Turn(card->turn) : Turn(); }

/// The sticky error of a card.
int state(const Card *card) {
    if (!card) return INVALID_CONTEXT;
    if (card->error) last_error = card->message;
    return card->error;
}

void check_canaries(Card &card, const char *kernel) {
    for (const auto &entry : card.ragged) {
        const Allocation &a = entry.second;
        for (size_t i = 0; i < a.slack(); i++) {
            if ((unsigned char)a.address[a.bytes + i] == canary) continue;
            card.error = 700;
            card.message = std::string(kernel) + " writes " + std::to_string(i) + " bytes behind an allocation of "
                + std::to_string(a.bytes) + " bytes";
            return;
        }
    }
}

void drain(Stream &stream) {
    Card &card = *card_of(stream.card);
    const Turn turn(card.turn);
    while (!stream.pending.empty()) {
        std::function<void()> next = std::move(stream.pending.front());
        stream.pending.pop_front();
        if (!card.error) next();
    }
}

void drain_all(Card &card) {
    for (auto &stream : card.streams) drain(*stream);
}

void reach(Event &event) {
    if (event.reached < event.recorded) drain(*event.stream);
}

mk_cu_result issue(mk_cu_stream handle, std::function<void()> work) {
    Stream *stream = (Stream *)handle;
    if (!stream) return INVALID_HANDLE;
    Card *card = card_of(stream->card);
    const Turn turn = turn_of(card);
    if (int error = state(card)) return error;
    stream->pending.push_back(std::move(work));
    return 0;
}

/// Issues work, or records it.
mk_cu_result issue_or_record(mk_cu_stream handle, std::function<mk_cu_result(mk_cu_stream)> work) {
    Stream *stream = (Stream *)handle;
    if (!stream) return INVALID_HANDLE;
    if (!stream->recording) return work(handle);
    stream->recording->nodes.push_back(std::move(work));
    return 0;
}

/// Whether a stream is recorded, which makes a graph of what cannot be recorded invalid.
bool spoils_recording(mk_cu_stream handle) {
    Stream *stream = (Stream *)handle;
    if (!stream || !stream->recording) return false;
    stream->recording->valid = false;
    return true;
}

// MARK: Driver, device, context

mk_cu_result init(unsigned) { return 0; }

mk_cu_result driver_version(int *version) {
    *version = 13000;
    return 0;
}

mk_cu_result device_count(int *count) {
    std::lock_guard<std::mutex> hold(lock);
    *count = (int)cards.size();
    return 0;
}

mk_cu_result device_get(int *device, int ordinal) {
    if (!card_of(ordinal)) return MK_CU_INVALID_DEVICE;
    *device = ordinal;
    return 0;
}

mk_cu_result device_name(char *name, int length, int) {
    snprintf(name, length, "emulated card");
    return 0;
}

mk_cu_result device_attribute(int *value, int attribute, int device) {
    const Card *card = card_of(device);
    if (!card) return MK_CU_INVALID_DEVICE;
    switch (attribute) {
    case MK_CU_CAPABILITY_MAJOR: *value = 9; return 0;
    case MK_CU_CAPABILITY_MINOR: *value = 0; return 0;
    case MK_CU_MULTIPROCESSORS: *value = card->properties.multiprocessors; return 0;
    case MK_CU_SHARED_PER_BLOCK_OPTIN: *value = (int)shared_limit; return 0;
    case MK_CU_COOPERATIVE_LAUNCH: *value = 1; return 0;
    case MK_CU_L2_BYTES: *value = 1 << 20; return 0;
    case MK_CU_MEMORY_CLOCK_KHZ:
    case MK_CU_MEMORY_BUS_BITS:
    case MK_CU_CLOCK_KHZ: *value = 1; return 0;
    default: return INVALID_VALUE;
    }
}

mk_cu_result device_memory(size_t *bytes, int device) {
    const Card *card = card_of(device);
    if (!card) return MK_CU_INVALID_DEVICE;
    *bytes = card->properties.memory;
    return 0;
}

mk_cu_result release(uint64_t address);

// A context is its card's number + 1.
mk_cu_result context_retain(mk_cu_context *context, int device) {
    Card *card = card_of(device);
    if (!card) return MK_CU_INVALID_DEVICE;
    const Turn turn(card->turn);
    card->contexts++;
    *context = (mk_cu_context)(intptr_t)(device + 1);
    return 0;
}

mk_cu_result context_release(int device) {
    Card *card = card_of(device);
    if (!card) return MK_CU_INVALID_DEVICE;
    const Turn turn(card->turn);
    if (card->contexts == 0) return INVALID_CONTEXT;
    if (--card->contexts > 0) return 0;
    std::vector<uint64_t> left;
    {
        std::lock_guard<std::mutex> hold(lock);
        for (const auto &entry : allocations)
            if (entry.second.card == device) left.push_back((uint64_t)entry.first);
    }
    for (uint64_t address : left) release(address);
    card->error = 0;
    return 0;
}

mk_cu_result context_set(mk_cu_context context) {
    const int number = (int)(intptr_t)context - 1;
    if (!card_of(number)) return INVALID_CONTEXT;
    current_card = number;
    return 0;
}

// MARK: Memory

mk_cu_result memory_info(size_t *free, size_t *total) {
    Card *card = current();
    const Turn turn = turn_of(card);
    if (!card) return INVALID_CONTEXT;
    *total = card->properties.memory;
    *free = card->used < card->properties.memory ? card->properties.memory - card->used : 0;
    return 0;
}

mk_cu_result allocate(uint64_t *address, size_t bytes) {
    Card *card = current();
    const Turn turn = turn_of(card);
    if (int error = state(card)) return error;
    if (bytes == 0) return INVALID_VALUE;
    const size_t page = getpagesize(), rounded = (bytes + 255) / 256 * 256;
    if (rounded > card->properties.memory || card->used > card->properties.memory - rounded) return MK_CU_OUT_OF_MEMORY;
    Allocation a = {};
    a.card = current_card;
    a.bytes = bytes;
    const size_t inside = (rounded + page - 1) / page * page;
    a.map_bytes = inside + 2 * page;
    a.map = (char *)mmap(nullptr, a.map_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
    if (a.map == MAP_FAILED) return MK_CU_OUT_OF_MEMORY;
    if (mprotect(a.map + page, inside, PROT_READ | PROT_WRITE) != 0) {
        munmap(a.map, a.map_bytes);
        return MK_CU_OUT_OF_MEMORY;
    }
    a.address = a.map + page + inside - rounded;
    // What nobody has written is NaN.
    memset(a.address, 0xff, bytes);
    memset(a.address + bytes, canary, a.slack());
    card->used += rounded;
    if (a.slack()) card->ragged[(uintptr_t)a.address] = a;
    *address = (uint64_t)(uintptr_t)a.address;
    std::lock_guard<std::mutex> hold(lock);
    allocations[(uintptr_t)a.address] = a;
    return 0;
}

mk_cu_result release(uint64_t address) {
    if (address == 0) return 0;
    Allocation a = {};
    {
        std::lock_guard<std::mutex> hold(lock);
        auto found = allocations.find((uintptr_t)address);
        if (found == allocations.end()) return INVALID_VALUE;
        a = found->second;
    }
    Card &card = *card_of(a.card);
    const Turn turn(card.turn);
    drain_all(card);
    {
        std::lock_guard<std::mutex> hold(lock);
        allocations.erase((uintptr_t)address);
    }
    card.ragged.erase((uintptr_t)address);
    card.used -= a.bytes + a.slack();
    munmap(a.map, a.map_bytes);
    return state(&card);
}

/// Whether bytes lie in one allocation.
bool holds(uint64_t address, size_t bytes) {
    std::lock_guard<std::mutex> hold(lock);
    auto found = allocations.upper_bound((uintptr_t)address);
    if (found == allocations.begin()) return false;
    const Allocation &a = (--found)->second;
    const size_t offset = (size_t)((char *)(uintptr_t)address - a.address);
    return offset <= a.bytes && bytes <= a.bytes - offset;
}

// Of memory that can be swapped out, the driver takes a copy before the call returns. A graph would keep the address of
// memory on the host, which nothing here promises to keep: so that is not recorded.
mk_cu_result copy_in_async(uint64_t to, const void *from, size_t bytes, mk_cu_stream stream) {
    if (spoils_recording(stream)) return CAPTURE_UNSUPPORTED;
    if (!holds(to, bytes)) return INVALID_VALUE;
    auto data = std::make_shared<std::vector<char>>((const char *)from, (const char *)from + bytes);
    return issue(stream, [=] { memcpy((void *)(uintptr_t)to, data->data(), bytes); });
}

mk_cu_result copy_out_async(void *to, uint64_t from, size_t bytes, mk_cu_stream stream) {
    if (spoils_recording(stream)) return CAPTURE_UNSUPPORTED;
    if (!holds(from, bytes)) return INVALID_VALUE;
    return issue(stream, [=] { memcpy(to, (const void *)(uintptr_t)from, bytes); });
}

mk_cu_result copy_device_async(uint64_t to, uint64_t from, size_t bytes, mk_cu_stream stream) {
    if (!holds(to, bytes) || !holds(from, bytes)) return INVALID_VALUE;
    return issue_or_record(stream, [=](mk_cu_stream target) {
        return issue(target, [=] { memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes); });
    });
}

mk_cu_result fill_async(uint64_t address, unsigned char value, size_t bytes, mk_cu_stream stream) {
    if (!holds(address, bytes)) return INVALID_VALUE;
    return issue_or_record(stream, [=](mk_cu_stream target) {
        return issue(target, [=] { memset((void *)(uintptr_t)address, value, bytes); });
    });
}

// These do not wait for streams of their own, as the back end's are.
mk_cu_result copy_in(uint64_t to, const void *from, size_t bytes) {
    if (int error = state(current())) return error;
    if (!holds(to, bytes)) return INVALID_VALUE;
    memcpy((void *)(uintptr_t)to, from, bytes);
    return 0;
}

mk_cu_result copy_out(void *to, uint64_t from, size_t bytes) {
    if (int error = state(current())) return error;
    if (!holds(from, bytes)) return INVALID_VALUE;
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return 0;
}

// MARK: Kernels

// A module holds the functions that were asked for.
struct Module {
    int card;
    std::deque<Function> functions;
};

mk_cu_result module_load(mk_cu_module *module, const void *) {
    if (int error = state(current())) return error;
    *module = new Module{current_card, {}};
    return 0;
}

mk_cu_result module_unload(mk_cu_module module) {
    delete (Module *)module;
    return 0;
}

mk_cu_result module_function(mk_cu_function *function, mk_cu_module handle, const char *name) {
    Module *module = (Module *)handle;
    if (!module) return INVALID_HANDLE;
    const Turn turn = turn_of(card_of(module->card));
    size_t count = 0;
    const Kernel *kernels = emulator::all_kernels(count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(kernels[i].name, name) != 0) continue;
        module->functions.push_back({module->card, &kernels[i], 48 << 10});
        *function = &module->functions.back();
        return 0;
    }
    return NOT_FOUND;
}

mk_cu_result function_set(mk_cu_function handle, int attribute, int value) {
    Function *function = (Function *)handle;
    if (!function) return INVALID_HANDLE;
    if (attribute == MK_CU_FUNC_SHARED_CARVEOUT) return value < 0 || value > 100 ? INVALID_VALUE : 0;
    if (attribute != MK_CU_FUNC_MAX_DYNAMIC_SHARED || value < 0 || (size_t)value > shared_limit) return INVALID_VALUE;
    function->shared_bytes = value;
    return 0;
}

/// Issues a launch; a graph's are issued, counted and disordered each time anew.
mk_cu_result issue_launch(
    Card &card, Launch launch, std::shared_ptr<std::vector<uint64_t>> arguments, mk_cu_stream stream) {
    card.launches++;
    const bool fails = card.launches_until_failure >= 0 && card.launches_until_failure-- == 0;
    launch.seed = card.properties.seed ? card.properties.seed * 1000003u + (unsigned)card.launches : 0;
    return issue(stream, [=, &card] {
        if (fails) {
            card.error = card.failure;
            card.message = std::string(launch.name) + " fails, as the test wants";
            return;
        }
        Launch now = launch;
        now.arguments = arguments->data();
        int code = 0;
        const std::string failure = emulator::run(now, code);
        if (!failure.empty()) {
            card.error = code;
            card.message = std::string(launch.name) + " " + failure;
        } else {
            check_canaries(card, launch.name);
        }
    });
}

mk_cu_result launch_any(
    mk_cu_function handle, emulator::index3 grid, emulator::index3 block, unsigned shared_bytes, mk_cu_stream stream,
    void **parameters, bool cooperative, bool overlaps = false) {
    Function *function = (Function *)handle;
    if (!function) return INVALID_HANDLE;
    Card *card = card_of(function->card);
    const Turn turn = turn_of(card);
    if (int error = state(card)) return error;
    const unsigned threads = block.x;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535
        || threads == 0 || threads > MK_THREADS || block.y != 1 || block.z != 1
        || shared_bytes > function->shared_bytes)
        return INVALID_VALUE;
    if (cooperative && (size_t)grid.x * grid.y * grid.z > (size_t)card->properties.multiprocessors)
        return COOPERATIVE_TOO_LARGE;
    const Kernel *kernel = function->kernel;
    auto arguments = std::make_shared<std::vector<uint64_t>>((kernel->argument_bytes + 7) / 8);
    memcpy(arguments->data(), parameters[0], kernel->argument_bytes);
    Launch launch = {};
    launch.name = kernel->name;
    launch.kernel = kernel->call;
    launch.grid = grid;
    launch.threads = threads;
    launch.shared_bytes = shared_bytes;
    launch.cooperative = cooperative;
    launch.overlaps = overlaps;
    return issue_or_record(
        stream, [=](mk_cu_stream target) { return issue_launch(*card, launch, arguments, target); });
}

mk_cu_result launch(
    mk_cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
    unsigned block_z, unsigned shared_bytes, mk_cu_stream stream, void **parameters, void **) {
    return launch_any(
        function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, stream, parameters, false);
}

mk_cu_result launch_cooperative(
    mk_cu_function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
    unsigned block_z, unsigned shared_bytes, mk_cu_stream stream, void **parameters) {
    return launch_any(
        function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, stream, parameters, true);
}

mk_cu_result launch_with(
    const mk_cu_launch_config *config, mk_cu_function function, void **parameters, void **) {
    bool overlaps = false;
    for (unsigned i = 0; i < config->attribute_count; i++) {
        if (config->attributes[i].id != MK_CU_LAUNCH_PROGRAMMATIC_SERIALIZATION) return INVALID_VALUE;
        overlaps = config->attributes[i].value.flag != 0;
    }
    return launch_any(
        function, {config->grid_x, config->grid_y, config->grid_z}, {config->block_x, config->block_y, config->block_z},
        config->shared_bytes, config->stream, parameters, false, overlaps);
}

// MARK: Streams and events

mk_cu_result stream_create(mk_cu_stream *stream, unsigned) {
    Card *card = current();
    const Turn turn = turn_of(card);
    if (int error = state(card)) return error;
    card->streams.emplace_back(new Stream{current_card, {}, nullptr});
    *stream = card->streams.back().get();
    return 0;
}

// What is still to do is done; the memory stays, for events that name it.
mk_cu_result stream_destroy(mk_cu_stream stream) {
    if (!stream) return INVALID_HANDLE;
    drain(*(Stream *)stream);
    return 0;
}

mk_cu_result stream_wait(mk_cu_stream handle) {
    Stream *stream = (Stream *)handle;
    if (!stream) return INVALID_HANDLE;
    if (spoils_recording(handle)) return CAPTURE_UNSUPPORTED;
    drain(*stream);
    return state(card_of(stream->card));
}

// MARK: Graphs

mk_cu_result capture_begin(mk_cu_stream handle, int) {
    Stream *stream = (Stream *)handle;
    if (!stream) return INVALID_HANDLE;
    Card *card = card_of(stream->card);
    const Turn turn = turn_of(card);
    if (int error = state(card)) return error;
    if (stream->recording) return CAPTURE_UNSUPPORTED;
    stream->recording.reset(new Graph());
    return 0;
}

mk_cu_result capture_end(mk_cu_stream handle, mk_cu_graph *graph) {
    Stream *stream = (Stream *)handle;
    *graph = nullptr;
    if (!stream || !stream->recording) return INVALID_VALUE;
    std::unique_ptr<Graph> recorded = std::move(stream->recording);
    if (!recorded->valid) return CAPTURE_INVALIDATED;
    *graph = recorded.release();
    return 0;
}

mk_cu_result graph_instantiate(mk_cu_graph_exec *executable, mk_cu_graph graph, unsigned long long) {
    if (!graph) return INVALID_HANDLE;
    if (int error = state(current())) return error;
    *executable = new Graph(*(Graph *)graph);
    return 0;
}

mk_cu_result graph_upload(mk_cu_graph_exec executable, mk_cu_stream stream) {
    return executable && stream ? state(card_of(((Stream *)stream)->card)) : INVALID_HANDLE;
}

mk_cu_result graph_launch(mk_cu_graph_exec executable, mk_cu_stream handle) {
    Stream *stream = (Stream *)handle;
    if (!executable || !stream) return INVALID_HANDLE;
    if (spoils_recording(handle)) return CAPTURE_UNSUPPORTED;
    Card *card = card_of(stream->card);
    const Turn turn = turn_of(card);
    if (int error = state(card)) return error;
    card->graph_launches++;
    for (const auto &node : ((Graph *)executable)->nodes)
        if (int error = node(handle)) return error;
    return 0;
}

mk_cu_result graph_destroy(mk_cu_graph graph) {
    delete (Graph *)graph;
    return 0;
}

mk_cu_result event_create(mk_cu_event *event, unsigned) {
    if (int error = state(current())) return error;
    *event = new Event();
    return 0;
}

mk_cu_result event_destroy(mk_cu_event handle) {
    Event *event = (Event *)handle;
    if (!event) return INVALID_HANDLE;
    reach(*event);
    delete event;
    return 0;
}

mk_cu_result event_record(mk_cu_event handle, mk_cu_stream stream) {
    Event *event = (Event *)handle;
    if (!event) return INVALID_HANDLE;
    if (spoils_recording(stream)) return CAPTURE_UNSUPPORTED;
    event->stream = (Stream *)stream;
    const long number = ++event->recorded;
    return issue(stream, [=] {
        event->time = std::chrono::steady_clock::now();
        event->reached = number;
    });
}

mk_cu_result event_wait(mk_cu_event handle) {
    Event *event = (Event *)handle;
    if (!event) return INVALID_HANDLE;
    reach(*event);
    return event->stream ? state(card_of(event->stream->card)) : 0;
}

mk_cu_result event_elapsed(float *milliseconds, mk_cu_event start, mk_cu_event end) {
    const Event *a = (Event *)start, *b = (Event *)end;
    if (!a || !b) return INVALID_HANDLE;
    if (a->reached < a->recorded || b->reached < b->recorded) return MK_CU_NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(b->time - a->time).count();
    return 0;
}

// MARK: Errors

mk_cu_result error_name(mk_cu_result error, const char **name) {
    static const std::map<int, const char *> names = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {MK_CU_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {MK_CU_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {MK_CU_NOT_READY, "CUDA_ERROR_NOT_READY"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {702, "CUDA_ERROR_LAUNCH_TIMEOUT"},
        {719, "CUDA_ERROR_LAUNCH_FAILED"},
        {COOPERATIVE_TOO_LARGE, "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    };
    auto found = names.find(error);
    static thread_local std::string text;
    text = found == names.end() ? "CUDA_ERROR_" + std::to_string(error) : found->second;
    // Where a card would say no more, the emulator says what happened.
    if (error >= 700 && error < 720 && !last_error.empty()) text += ": " + last_error;
    *name = text.c_str();
    return 0;
}

mk_cu_result error_string(mk_cu_result error, const char **text) { return error_name(error, text); }

}  // namespace

std::string emulator::describe(const void *address) {
    const char *at = (const char *)address;
    std::lock_guard<std::mutex> hold(lock);
    for (const auto &entry : allocations) {
        const Allocation &a = entry.second;
        if (at < a.map || at >= a.map + a.map_bytes) continue;
        if (at < a.address)
            return std::to_string(a.address - at) + " bytes before an allocation of " + std::to_string(a.bytes)
                + " bytes";
        return std::to_string(at - a.address - (long)a.bytes) + " bytes behind an allocation of "
            + std::to_string(a.bytes) + " bytes";
    }
    char text[64];
    snprintf(text, sizeof text, "the address %p, which is not allocated", address);
    return text;
}

void mk_emulator_driver(mk_cuda_driver *d) {
    d->init = init;
    d->driver_version = driver_version;
    d->device_count = device_count;
    d->device_get = device_get;
    d->device_name = device_name;
    d->device_attribute = device_attribute;
    d->device_memory = device_memory;
    d->context_retain = context_retain;
    d->context_release = context_release;
    d->context_set = context_set;
    d->memory_info = memory_info;
    d->allocate = allocate;
    d->release = release;
    d->copy_in = copy_in;
    d->copy_out = copy_out;
    d->copy_in_async = copy_in_async;
    d->copy_out_async = copy_out_async;
    d->copy_device_async = copy_device_async;
    d->fill_async = fill_async;
    d->module_load = module_load;
    d->module_unload = module_unload;
    d->module_function = module_function;
    d->function_set = function_set;
    d->launch = launch;
    d->launch_cooperative = launch_cooperative;
    d->launch_with = launch_with;
    d->stream_create = stream_create;
    d->stream_destroy = stream_destroy;
    d->stream_wait = stream_wait;
    d->event_create = event_create;
    d->event_destroy = event_destroy;
    d->event_record = event_record;
    d->event_wait = event_wait;
    d->event_elapsed = event_elapsed;
    d->capture_begin = capture_begin;
    d->capture_end = capture_end;
    d->graph_instantiate = graph_instantiate;
    d->graph_upload = graph_upload;
    d->graph_launch = graph_launch;
    d->graph_destroy = graph_destroy;
    d->graph_exec_destroy = graph_destroy;
    d->error_name = error_name;
    d->error_string = error_string;
}

int mk_emulator_add_card(mk_emulated_card properties) {
    std::lock_guard<std::mutex> hold(lock);
    cards.emplace_back();
    cards.back().properties = properties;
    return (int)cards.size() - 1;
}

void mk_emulator_set_memory(int card, size_t bytes) {
    Card *c = card_of(card);
    const Turn turn = turn_of(c);
    if (c) c->properties.memory = bytes;
}

void mk_emulator_fail_launch(int card, int launches, mk_cu_result code) {
    Card *c = card_of(card);
    const Turn turn = turn_of(c);
    if (!c) return;
    c->launches_until_failure = launches;
    c->failure = code;
}

long mk_emulator_launches(int card) {
    Card *c = card_of(card);
    const Turn turn = turn_of(c);
    return c ? c->launches : 0;
}

long mk_emulator_graph_launches(int card) {
    Card *c = card_of(card);
    const Turn turn = turn_of(c);
    return c ? c->graph_launches : 0;
}

const char *const *mk_emulator_kernels(void) {
    static const std::vector<const char *> names = [] {
        size_t count = 0;
        const Kernel *kernels = emulator::all_kernels(count);
        std::vector<const char *> all;
        for (size_t i = 0; i < count; i++) all.push_back(kernels[i].name);
        all.push_back(nullptr);
        return all;
    }();
    return names.data();
}
