#include "Threads.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>

namespace emulator {

MK_PER_THREAD Fiber *current;
MK_PER_THREAD const Launch *current_launch;

// Keeps the registers that a call must keep on the stack, and goes on where `to` was left.
#if defined(__x86_64__)
__attribute__((naked, noinline)) void switch_stack(void **, void *) {
    asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
        "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
        "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n"
        "popq %rcx\n jmp *%rcx\n");
}

static void *first_frame(char *top, void (*entry)()) {
    void **at = (void **)((uintptr_t)top & ~(uintptr_t)15);
    at[-2] = 0;
    at[-3] = 0;
    at -= 3;
    *--at = (void *)entry;
    for (int i = 0; i < 6; i++) *--at = 0;
    return at;
}
#elif defined(__aarch64__)
__attribute__((naked, noinline)) void switch_stack(void **, void *) {
    asm("sub sp, sp, #160\n"
        "stp x19, x20, [sp]\n stp x21, x22, [sp, #16]\n stp x23, x24, [sp, #32]\n stp x25, x26, [sp, #48]\n"
        "stp x27, x28, [sp, #64]\n stp x29, x30, [sp, #80]\n"
        "stp d8, d9, [sp, #96]\n stp d10, d11, [sp, #112]\n stp d12, d13, [sp, #128]\n stp d14, d15, [sp, #144]\n"
        "mov x9, sp\n str x9, [x0]\n mov sp, x1\n"
        "ldp x19, x20, [sp]\n ldp x21, x22, [sp, #16]\n ldp x23, x24, [sp, #32]\n ldp x25, x26, [sp, #48]\n"
        "ldp x27, x28, [sp, #64]\n ldp x29, x30, [sp, #80]\n"
        "ldp d8, d9, [sp, #96]\n ldp d10, d11, [sp, #112]\n ldp d12, d13, [sp, #128]\n ldp d14, d15, [sp, #144]\n"
        "add sp, sp, #160\n ret\n");
}

static void *first_frame(char *top, void (*entry)()) {
    void **at = (void **)((uintptr_t)top & ~(uintptr_t)15) - 20;
    for (int i = 0; i < 20; i++) at[i] = 0;
    at[11] = (void *)entry;
    return at;
}
#else
#error "the CUDA emulator needs a stack switch for this processor"
#endif

namespace {

const size_t stack_bytes = 48 << 10;
const size_t shared_limit = 228 << 10;

/// Memory with an unreadable page on both sides.
struct Region {
    char *base;
    size_t bytes;
    char *begin() const { return base + getpagesize(); }
    char *end() const { return base + bytes - getpagesize(); }

    explicit Region(size_t wanted) {
        const size_t page = getpagesize();
        bytes = (wanted + page - 1) / page * page + 2 * page;
        base = (char *)mmap(0, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANON, -1, 0);
        if (base == MAP_FAILED || mprotect(begin(), end() - begin(), PROT_READ | PROT_WRITE) != 0) {
            perror("CUDA emulator: no memory for stacks");
            abort();
        }
    }
    Region(const Region &) = delete;
    ~Region() { munmap(base, bytes); }
};

/// One block's worth of fibers and shared memory, used again and again.
struct Place {
    Block block;
    std::unique_ptr<Region> shared{new Region(shared_limit)};
    std::vector<std::unique_ptr<Region>> stacks;
    std::vector<Fiber> fibers;
    std::vector<Copy> copies;
};

/// What a thread of the host runs launches with.
struct Machine {
    std::vector<std::unique_ptr<Place>> places;
    /// Blocks that are under way.
    size_t live = 0;
    int remaining = 0;
    void *host_stack = 0;
    uint64_t state = 0;
    long spins = 0;
    std::string failure;
    int failure_code = 0;
    sigjmp_buf fault;
    bool runs = false;
    void *signal_stack = 0;

    Machine() {
        stack_t now;
        if (sigaltstack(0, &now) == 0 && (now.ss_flags & SS_DISABLE)) {
            signal_stack = malloc(64 << 10);
            stack_t own = {};
            own.ss_sp = signal_stack;
            own.ss_size = 64 << 10;
            sigaltstack(&own, 0);
        }
    }
    ~Machine() {
        if (!signal_stack) return;
        stack_t none = {};
        none.ss_flags = SS_DISABLE;
        sigaltstack(&none, 0);
        free(signal_stack);
    }
};

MK_PER_THREAD Machine *machine;

std::string where() {
    if (!current) return "";
    const index3 b = current->warp->block->index, t = current->index;
    return " in block (" + std::to_string(b.x) + ", " + std::to_string(b.y) + "), thread " + std::to_string(t.x);
}

// A fault in a kernel ends the launch; any other is not ours.
struct sigaction earlier[2];

void on_fault(int number, siginfo_t *information, void *context) {
    if (machine && machine->runs) {
        machine->failure = "touches " + describe(information->si_addr) + where();
        machine->failure_code = 700;
        siglongjmp(machine->fault, 1);
    }
    const struct sigaction &old = earlier[number == SIGBUS];
    if (old.sa_flags & SA_SIGINFO) {
        old.sa_sigaction(number, information, context);
    } else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
        old.sa_handler(number);
    } else {
        signal(number, SIG_DFL);
    }
}

void watch_faults() {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &action, &earlier[0]);
    sigaction(SIGBUS, &action, &earlier[1]);
}

Fiber *next_of(Block &block) {
    block.cursor = next_bit(block.ready_warps, block.cursor);
    Warp &warp = block.warps[block.cursor];
    return warp.by_place[next_bit(warp.ready, 31)];
}

/// A fiber of another warp that can run, first of the same block; null if there is none.
Fiber *outside(Warp &warp, bool same_block_first) {
    Block &block = *warp.block;
    if (same_block_first && block.ready_warps) return next_of(block);
    size_t own = 0;
    while (own < machine->live && &machine->places[own]->block != &block) own++;
    for (size_t i = 1; i <= machine->live; i++) {
        Block &other = machine->places[(own + i) % machine->live]->block;
        if (other.ready_warps) return next_of(other);
    }
    return 0;
}

/// Goes to the fiber, or ends the launch.
void go_or_end(Fiber *next) {
    if (next == current) return;
    if (next) {
        go_to(next);
    } else {
        Fiber *self = current;
        current = 0;
        switch_stack(&self->stack_pointer, machine->host_stack);
    }
}

void leave() {
    Warp &warp = *current->warp;
    go_or_end(warp.ready ? warp.by_place[next_bit(warp.ready, current->place)] : outside(warp, true));
}

void stop_running(Fiber &fiber) {
    Warp &warp = *fiber.warp;
    warp.ready &= ~fiber.bit;
    if (!warp.ready) warp.block->ready_warps &= ~(1u << warp.number);
}

void release(Block &block) {
    block.arrived = 0;
    block.ready_warps = 0;
    machine->spins = 0;
    for (int w = 0; w < 32; w++) {
        Warp &warp = block.warps[w];
        warp.ready = warp.alive;
        if (warp.ready) block.ready_warps |= 1u << w;
    }
}

void fiber_main() {
    current_launch->kernel(current_launch->arguments);
    Fiber &self = *current;
    if (current_launch->overlaps && !self.has_waited) fail("does not wait for the launch that it overlaps");
    close_copies();
    wait_copies(0);
    Warp &warp = *self.warp;
    Block &block = *warp.block;
    if (warp.arrived) fail(std::string("returns while other lanes of its warp wait in ") + warp.operation);
    stop_running(self);
    warp.alive &= ~self.bit;
    block.alive--;
    machine->remaining--;
    if (block.arrived && block.arrived == block.alive) release(block);
    leave();
    abort();
}

void prepare(Place &place, index3 index) {
    const Launch &launch = *current_launch;
    const unsigned threads = launch.threads, warps = (threads + 31) / 32;
    while (place.stacks.size() < threads) place.stacks.emplace_back(new Region(stack_bytes));
    place.fibers.resize(place.stacks.size());
    place.copies.resize(place.stacks.size() * Fiber::capacity);
    Block &block = place.block;
    block.index = index;
    block.ready_warps = warps == 32 ? ~0u : (1u << warps) - 1;
    block.alive = threads;
    block.arrived = 0;
    block.cursor = 31 + random_bits() % 32;
    // It ends at the unreadable page, and holds what no kernel may read: NaNs.
    block.shared = place.shared->end() - (launch.shared_bytes + 15) / 16 * 16;
    memset(block.shared, 0xff, place.shared->end() - block.shared);
    for (unsigned w = 0; w < 32; w++) {
        Warp &warp = block.warps[w];
        warp.block = &block;
        warp.number = w;
        warp.ready = warp.alive = 0;
        warp.arrived = 0;
        const unsigned order = random_bits(), factor = order | 1, offset = order >> 8;
        for (unsigned lane = 0; lane < 32 && w * 32 + lane < threads; lane++) {
            Fiber &fiber = place.fibers[w * 32 + lane];
            fiber.warp = &warp;
            fiber.index = {w * 32 + lane, 0, 0};
            fiber.lane = lane;
            fiber.place = (lane * factor + offset) & 31;
            fiber.bit = 1u << fiber.place;
            fiber.waits_for = "nothing";
            fiber.has_waited = false;
            fiber.copies = &place.copies[(w * 32 + lane) * Fiber::capacity];
            fiber.first_copy = fiber.copy_end = fiber.groups = 0;
            // Not all at the same place of a page: caches are cut by address.
            fiber.stack_pointer = first_frame(
                place.stacks[w * 32 + lane]->end() - ((w * 32 + lane) * 5 % 64 + 1) * 64, fiber_main);
            warp.by_place[fiber.place] = &fiber;
            warp.alive |= fiber.bit;
        }
        warp.ready = warp.alive;
    }
    machine->remaining += threads;
}

void run_live() {
    current = next_of(machine->places[random_bits() % machine->live]->block);
    switch_stack(&machine->host_stack, current->stack_pointer);
    if (!machine->failure.empty() || machine->remaining == 0) return;
    // Nobody can run: say what they wait for.
    std::vector<std::pair<std::string, int>> waiting;
    for (size_t i = 0; i < machine->live; i++) {
        const Place &place = *machine->places[i];
        for (const Warp &warp : place.block.warps) {
            for (int p = 0; p < 32; p++) {
                if (!(warp.alive >> p & 1)) continue;
                const char *what = warp.by_place[p]->waits_for;
                size_t at = 0;
                while (at < waiting.size() && waiting[at].first != what) at++;
                if (at == waiting.size()) waiting.push_back({what, 0});
                waiting[at].second++;
            }
        }
    }
    machine->failure = "waits for ever:";
    for (const auto &entry : waiting)
        machine->failure += " " + std::to_string(entry.second) + " threads in " + entry.first;
    machine->failure_code = 702;
}

}  // namespace

std::string run(const Launch &launch, int &code) {
    static std::once_flag once;
    std::call_once(once, watch_faults);
    static thread_local std::unique_ptr<Machine> owner{new Machine()};
    machine = owner.get();
    current_launch = &launch;
    machine->failure.clear();
    machine->failure_code = 0;
    machine->remaining = 0;
    machine->state = launch.seed ? launch.seed * 0x9E3779B97F4A7C15ull | 1 : 0;
    machine->spins = 0;
    const size_t blocks = (size_t)launch.grid.x * launch.grid.y * launch.grid.z;
    const size_t together = launch.cooperative ? blocks : 1;
    while (machine->places.size() < together) machine->places.emplace_back(new Place());
    const size_t offset = random_bits() % blocks;
    const bool backwards = random_bits() & 1;
    if (sigsetjmp(machine->fault, 1) == 0) {
        machine->runs = true;
        for (size_t done = 0; done < blocks && machine->failure.empty(); done += together) {
            machine->live = together;
            for (size_t i = 0; i < together; i++) {
                size_t b = (done + i + offset) % blocks;
                if (backwards) b = blocks - 1 - b;
                const unsigned x = b % launch.grid.x, rest = b / launch.grid.x;
                prepare(*machine->places[i], {x, rest % launch.grid.y, rest / launch.grid.y});
            }
            run_live();
        }
    }
    machine->runs = false;
    current = 0;
    current_launch = 0;
    code = machine->failure_code;
    return machine->failure;
}

void begin_operation(unsigned mask, const char *operation) {
    Warp &warp = *current->warp;
    warp.operation = operation;
    if (mask != 0xffffffffu || warp.alive != 0xffffffffu)
        fail(std::string("calls ") + operation + " without all 32 lanes, which is not emulated");
}

void fail_operation(const char *operation) {
    fail(std::string("calls ") + operation + " where another lane calls " + current->warp->operation);
}

void leave_warp() {
    Warp &warp = *current->warp;
    warp.block->ready_warps &= ~(1u << warp.number);
    go_or_end(outside(warp, true));
}

void resume_warp() {
    Warp &warp = *current->warp;
    warp.arrived = 0;
    warp.ready = warp.alive;
    warp.block->ready_warps |= 1u << warp.number;
    // With a seed, another warp may come now.
    if (machine->state && (random_bits() & 7) == 0) go_or_end(outside(warp, true));
}

void block_barrier() {
    Fiber &self = *current;
    Block &block = *self.warp->block;
    if (++block.arrived == block.alive) {
        release(block);
        return;
    }
    self.waits_for = "__syncthreads";
    Warp &warp = *self.warp;
    warp.ready &= ~self.bit;
    if (warp.ready) {
        go_to(warp.by_place[next_bit(warp.ready, self.place)]);
    } else {
        leave_warp();
    }
}

void yield() {
    if (++machine->spins > 50000000) {
        machine->failure_code = 702;
        fail("spins for ever");
    }
    go_or_end(outside(*current->warp, false));
}

void progress() { machine->spins = 0; }

void fail(const std::string &message) {
    machine->failure = message + where();
    if (machine->failure_code == 0) machine->failure_code = 719;
    go_or_end(0);
    abort();
}

unsigned random_bits() {
    if (!machine->state) return 0;
    machine->state ^= machine->state << 13;
    machine->state ^= machine->state >> 7;
    machine->state ^= machine->state << 17;
    return (unsigned)(machine->state >> 32);
}

static void copy_now(const Copy &copy) { memcpy(copy.to, copy.from, 16); }

void copy_later(void *to, const void *from) {
    if (((uintptr_t)to | (uintptr_t)from) & 15) fail("copies from or to an address that is no multiple of 16");
    Fiber &self = *current;
    if (random_bits() & 1) {
        copy_now({to, from, 0});
        return;
    }
    if (self.copy_end - self.first_copy == Fiber::capacity) fail("has more asynchronous copies than are emulated");
    self.copies[self.copy_end++ % Fiber::capacity] = {to, from, self.groups};
}

void close_copies() { current->groups++; }

void wait_copies(unsigned pending) {
    Fiber &self = *current;
    while (self.first_copy != self.copy_end) {
        const Copy &copy = self.copies[self.first_copy % Fiber::capacity];
        if (copy.group + pending >= self.groups) break;
        copy_now(copy);
        self.first_copy++;
    }
}

}  // namespace emulator
