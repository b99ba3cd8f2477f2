// A standing team of threads for calls made of many small parts, as a token is: an OpenMP region waits until every
// thread has arrived, which takes longer than such a part where somebody else uses the cores.
//
// The caller takes items like everybody and waits only for items that a helper has begun: a helper that the system does
// not run costs nothing. Helpers look out for work while a session is open and a moment longer, and sleep otherwise.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <system_error>
#include <thread>

namespace workbench {

inline void rest_a_moment() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

class Team {
public:
    using Run = void (*)(void* body, int worker, int64_t item);
    static constexpr int64_t MOST_ITEMS = (int64_t(1) << 20) - 1;

    // Takes the team for one caller; false where another has it.
    bool open(int threads) {
        if (is_taken_.exchange(true, std::memory_order_acquire)) return false;
        std::lock_guard<std::mutex> guard(lock_);
        try {
            for (; helpers_ < threads - 1; helpers_++) std::thread(&Team::help, this, helpers_ + 1).detach();
        } catch (const std::system_error&) {
            // the system gives no more threads: those that there are do the work.
        }
        wanted_.store(threads, std::memory_order_relaxed);
        is_open_.store(true, std::memory_order_release);
        if (asleep_ > 0) awake_.notify_all();
        return true;
    }

    void close() {
        is_open_.store(false, std::memory_order_relaxed);
        is_taken_.store(false, std::memory_order_release);
    }

    // Everything is done when it returns. By the caller that has opened it.
    void run(Run run, void* body, int64_t items) {
        run_ = run, body_ = body;
        finished_.store(0, std::memory_order_relaxed);
        const uint64_t turn = (state_.load(std::memory_order_relaxed) >> 40) + 1;
        state_.store(turn << 40 | uint64_t(items), std::memory_order_release);
        int64_t own = 0;
        for (int64_t item = claim(); item >= 0; item = claim(), own++) run(body, 0, item);
        for (int looks = 0; finished_.load(std::memory_order_acquire) < items - own; looks++)
            looks < LOOKS ? rest_a_moment() : std::this_thread::yield();
    }

private:
    static constexpr int LOOKS = 1000;  // some tens of microseconds

    // The next item, or -1. Turn, next item and items are one number, so that nobody takes an item of a turn that is over.
    int64_t claim() {
        uint64_t seen = state_.load(std::memory_order_acquire);
        while ((seen >> 20 & MOST_ITEMS) < (seen & MOST_ITEMS))
            if (state_.compare_exchange_weak(seen, seen + (uint64_t(1) << 20), std::memory_order_acq_rel))
                return int64_t(seen >> 20 & MOST_ITEMS);
        return -1;
    }

    [[noreturn]] void help(int worker) {
        for (;;) {
            {
                std::unique_lock<std::mutex> guard(lock_);
                asleep_++;
                awake_.wait(guard, [this] { return is_open_.load(std::memory_order_relaxed); });
                asleep_--;
            }
            for (int looks = 0; looks < LOOKS || is_open_.load(std::memory_order_relaxed); looks++) {
                const int64_t item = worker < wanted_.load(std::memory_order_relaxed) ? claim() : -1;
                if (item >= 0) {
                    run_(body_, worker, item);
                    finished_.fetch_add(1, std::memory_order_release);
                    looks = 0;
                } else {
                    looks < LOOKS ? rest_a_moment() : std::this_thread::yield();
                }
            }
        }
    }

    std::atomic<bool> is_taken_{false}, is_open_{false};
    std::atomic<int> wanted_{0};
    alignas(64) std::atomic<uint64_t> state_{0};
    alignas(64) std::atomic<int64_t> finished_{0};
    Run run_ = nullptr;
    void* body_ = nullptr;
    std::mutex lock_;
    std::condition_variable awake_;
    int helpers_ = 0, asleep_ = 0;  // under the lock
};

Team& team();  // of this process

// The team for as long as it lives, or the caller alone: for one thread, or where somebody else has the team.
class Session {
public:
    explicit Session(int threads) : team_(threads > 1 && team().open(threads) ? &team() : nullptr), workers_(threads) {}
    ~Session() {
        if (team_ != nullptr) team_->close();
    }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    int workers() const { return team_ == nullptr ? 1 : workers_; }

    // body(worker, item) for every item, in any order.
    template <class Body>
    void for_items(int64_t items, Body&& body) {
        if (team_ == nullptr || items < 2 || items > Team::MOST_ITEMS) {
            for (int64_t item = 0; item < items; item++) body(0, item);
            return;
        }
        const auto run = [](void* own, int worker, int64_t item) { (*static_cast<Body*>(own))(worker, item); };
        team_->run(run, &body, items);
    }

private:
    Team* team_;
    const int workers_;
};

}  // namespace workbench
