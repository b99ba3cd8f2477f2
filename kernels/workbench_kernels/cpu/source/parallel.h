// Threads and memory. Threads are those of the OpenMP runtime that PyTorch has loaded, where there is one: a second
// pool would fight it for the cores.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace workbench {

using OpenMP = void (*)(void (*)(void*), void*, unsigned, unsigned);
extern OpenMP openmp;  // GOMP_parallel, or null

// Runs body(worker) on `threads` workers, worker 0 among them.
template <class Body>
void on_workers(int threads, Body&& body) {
    if (threads <= 1) return body(0);
    struct Shared {
        Body* body;
        std::atomic<int> next;
    } shared{&body, {0}};
    const auto enter = [](void* data) {
        Shared* own = static_cast<Shared*>(data);
        (*own->body)(own->next.fetch_add(1));
    };
    if (openmp != nullptr) return openmp(enter, &shared, unsigned(threads), 0);
    std::vector<std::thread> others;
    for (int i = 1; i < threads; i++) others.emplace_back(enter, &shared);
    enter(&shared);
    for (std::thread& other : others) other.join();
}

// One dynamic work queue: workers take the next item until none is left. Items are taken in order.
template <class Body>
void for_items(int threads, int64_t items, Body&& body) {
    std::atomic<int64_t> next{0};
    on_workers(int(items < threads ? items : threads), [&](int worker) {
        for (int64_t item = next.fetch_add(1); item < items; item = next.fetch_add(1)) body(worker, item);
    });
}

// Scratch memory of one call, kept by its thread for the next: fresh pages cost more than the arithmetic on them.
class Arena {
public:
    ~Arena() { release(); }

    // Runs `layout(take)` twice: once to learn the size, once to hand out memory, where take(n) gives n floats on a line
    // of their own. Earlier memory is void. False when there is not enough.
    template <class Layout>
    bool lay_out(Layout&& layout) {
        size_t bytes = 0;
        layout([&bytes](int64_t count) {
            bytes += bytes_of(count);
            return static_cast<float*>(nullptr);
        });
        if (!grow(bytes)) return false;
        char* next = base_;
        layout([&next](int64_t count) {
            float* own = reinterpret_cast<float*>(next);
            next += bytes_of(count);
            return own;
        });
        return true;
    }

    void release() {
        std::free(base_);
        base_ = nullptr;
        size_ = 0;
    }

private:
    static size_t bytes_of(int64_t count) { return (size_t(count) * sizeof(float) + 127) & ~size_t(63); }

    bool grow(size_t bytes) {
        if (bytes <= size_) return true;
        release();
        const size_t page = size_t(2) << 20, rounded = (bytes + page - 1) & ~(page - 1);
        base_ = static_cast<char*>(std::aligned_alloc(page, rounded));
        if (base_ == nullptr) return false;
        size_ = rounded;
#if defined(MADV_HUGEPAGE)
        madvise(base_, size_, MADV_HUGEPAGE);
#endif
        return true;
    }

    char* base_ = nullptr;
    size_t size_ = 0;
};

Arena& arena();  // of the calling thread

}  // namespace workbench
