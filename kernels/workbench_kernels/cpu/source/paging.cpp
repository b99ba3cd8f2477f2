// Who is in a cache of pages while sets of them are asked for: counts of many caches in one pass, and events of one.
#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

namespace {

constexpr int32_t HIT = -2, FREE = -1;
constexpr int64_t BLOCK = 4096;  // requests that each cache takes in its turn: its tables stay near the processor

struct Requests {
    int64_t sets, pages;
    const int32_t* page;
    const int64_t* start;

    int64_t size() const { return start[sets]; }

    // Index of the first set that is no set, or -1: pages ascend and exist.
    int64_t fault() const {
        for (int64_t s = 0; s < sets; s++)
            for (int64_t i = start[s]; i < start[s + 1]; i++)
                if (page[i] < 0 || page[i] >= pages || (i > start[s] && page[i] <= page[i - 1])) return s;
        return -1;
    }

    // Position at which the page of each position is asked for again; past the end if never, further for larger pages.
    std::vector<uint32_t> next() const {
        std::vector<uint32_t> next(size()), seen(pages);
        for (int64_t p = 0; p < pages; p++) seen[p] = uint32_t(size() + p);
        for (int64_t i = size() - 1; i >= 0; i--) {
            next[i] = seen[page[i]];
            seen[page[i]] = uint32_t(i);
        }
        return next;
    }
};

// Who may leave, with the one of largest key in front; keys differ, and 0 stands for nobody.
template <class Key>
class Tournament {
   public:
    explicit Tournament(int64_t pages) {
        while (leaves < pages) leaves *= 2;
        key.assign(2 * leaves, 0);
    }
    void set(int32_t page, Key value) {
        int64_t at = leaves + page;
        key[at] = value;
        for (at /= 2; at > 0; at /= 2) {
            const Key best = std::max(key[2 * at], key[2 * at + 1]);
            if (key[at] == best) break;
            key[at] = best;
        }
    }
    int32_t front() const {
        int64_t at = 1;
        while (at < leaves) at = 2 * at + (key[2 * at] != key[at]);
        return int32_t(at - leaves);
    }

   private:
    int64_t leaves = 1;
    std::vector<Key> key;
};

// A list in order of use. What is asked for is the newest at once, so it is never the oldest while it is needed.
class LRU {
   public:
    LRU(const Requests& requests, const uint32_t*) : end(int32_t(requests.pages)), before(end + 1), after(end + 1) {
        before[end] = after[end] = end;
    }
    void touch(int32_t page, int64_t) {
        unlink(page);
        enter(page);
    }
    void place(int32_t page, int64_t) { enter(page); }
    void pin(int32_t) {}
    void settle(int32_t) {}
    int32_t victim() const { return after[end]; }
    void leave(int32_t page) { unlink(page); }

   private:
    void unlink(int32_t page) { after[before[page]] = after[page], before[after[page]] = before[page]; }
    void enter(int32_t page) {
        before[page] = before[end], after[page] = end;
        after[before[page]] = page, before[end] = page;
    }
    int32_t end;
    std::vector<int32_t> before, after;
};

// The fewest uses of all time leave, of those the oldest last use: positions are in order of sets, then of pages.
class LFU {
   public:
    LFU(const Requests& requests, const uint32_t*) : count(requests.pages, 0), key(requests.pages), out(requests.pages) {}
    void touch(int32_t page, int64_t at) { key[page] = ~((++count[page] << 32) | uint64_t(at)); }
    void place(int32_t page, int64_t at) { touch(page, at); }
    void pin(int32_t page) { out.set(page, 0); }
    void settle(int32_t page) { out.set(page, key[page]); }
    int32_t victim() const { return out.front(); }
    void leave(int32_t page) { out.set(page, 0); }

   private:
    std::vector<uint64_t> count, key;
    Tournament<uint64_t> out;
};

// The next use furthest away leaves.
class MIN {
   public:
    MIN(const Requests& requests, const uint32_t* next) : next(next), key(requests.pages), out(requests.pages) {}
    void touch(int32_t page, int64_t at) { key[page] = next[at]; }
    void place(int32_t page, int64_t at) { touch(page, at); }
    void pin(int32_t page) { out.set(page, 0); }
    void settle(int32_t page) { out.set(page, key[page]); }
    int32_t victim() const { return out.front(); }
    void leave(int32_t page) { out.set(page, 0); }

   private:
    const uint32_t* next;
    std::vector<uint32_t> key;
    Tournament<uint32_t> out;
};

template <class Policy>
class Cache {
   public:
    Cache(const Requests& requests, const uint32_t* next, int64_t capacity)
        : capacity(capacity), free(capacity), policy(requests, next), resident(requests.pages, 0) {}

    // Hits are judged and touched first; misses are placed after them, a cache full at a time.
    void step(const int32_t* page, int64_t first, int64_t end, int32_t* event) {
        held.clear(), missing.clear();
        for (int64_t i = first; i < end; i++) {
            if (!resident[page[i]]) {
                missing.push_back(i);
                continue;
            }
            held.push_back(page[i]);
            policy.touch(page[i], i);
            if (event) event[i] = HIT;
        }
        hits += int64_t(held.size());
        int64_t room = capacity - int64_t(held.size());
        const int64_t misses = int64_t(missing.size());
        for (int64_t done = 0; done < misses;) {
            const int64_t wave = std::min(room, misses - done);
            if (free < wave)
                for (int32_t pinned : held) policy.pin(pinned);
            for (int64_t j = done; j < done + wave; j++) {
                const int32_t gone = place(page[missing[j]], missing[j]);
                if (event) event[missing[j]] = gone;
            }
            for (int32_t pinned : held) policy.settle(pinned);
            for (int64_t j = done; j < done + wave; j++) policy.settle(page[missing[j]]);
            held.clear();
            done += wave, room = capacity;
        }
        for (int32_t pinned : held) policy.settle(pinned);
    }

    int64_t hits = 0, evictions = 0;

   private:
    int32_t place(int32_t page, int64_t at) {
        int32_t gone = FREE;
        if (free > 0) {
            free--;
        } else {
            gone = policy.victim();
            policy.leave(gone);
            resident[gone] = 0;
            evictions++;
        }
        resident[page] = 1;
        policy.place(page, at);
        return gone;
    }
    int64_t capacity, free;
    Policy policy;
    std::vector<uint8_t> resident;
    std::vector<int32_t> held;
    std::vector<int64_t> missing;
};

template <class Policy>
void run(const Requests& requests, const uint32_t* next, const int64_t* capacity, int64_t caches, int64_t* hits,
         int64_t* evictions, int32_t* event) {
    std::vector<Cache<Policy>> all;
    all.reserve(caches);
    for (int64_t c = 0; c < caches; c++) all.emplace_back(requests, next, capacity[c]);
    for (int64_t low = 0, high = 0; low < requests.sets; low = high) {
        while (high < requests.sets && requests.start[high] - requests.start[low] < BLOCK) high++;
        for (Cache<Policy>& one : all)
            for (int64_t s = low; s < high; s++)
                one.step(requests.page, requests.start[s], requests.start[s + 1], event);
    }
    for (int64_t c = 0; c < caches; c++) hits[c] = all[c].hits, evictions[c] = all[c].evictions;
}

// What stays in a stack: 0 the newest, 1 the most used, 2 the most used in a window ahead, 3 the soonest used again.
// Caches of all sizes at once: one of size c holds the first c of the stack.
class Stack {
   public:
    Stack(const Requests& requests, int kind, int64_t window, const uint32_t* next)
        : r(requests), kind(kind), window(window), next(next), rank(r.pages), place(r.pages), last(r.pages) {
        order.reserve(r.pages);
    }

    void run(int64_t first, int64_t end, int64_t* reuse, int64_t* cold) {
        order.clear();
        std::fill(rank.begin(), rank.end(), 0);
        std::fill(place.begin(), place.end(), -1);
        int64_t ahead = first;
        for (int64_t s = first; s < end; s++) {
            if (kind == 2)
                for (; ahead < std::min(s + window, end); ahead++)
                    for (int64_t i = r.start[ahead]; i < r.start[ahead + 1]; i++) rank[r.page[i]]++;
            int64_t seen = int64_t(order.size());
            for (int64_t i = r.start[s]; i < r.start[s + 1]; i++)
                place[r.page[i]] >= 0 ? reuse[place[r.page[i]]]++ : cold[seen++]++;
            for (int64_t i = r.start[s]; i < r.start[s + 1]; i++) enter(i, r.start[end]);
        }
    }

   private:
    bool stays(int32_t one, int32_t other) const {
        return rank[one] != rank[other] ? rank[one] > rank[other] : last[one] > last[other];
    }
    void enter(int64_t i, int64_t end) {
        const int32_t page = r.page[i];
        int64_t old = place[page];
        if (old < 0) {
            old = int64_t(order.size());
            order.push_back(page);
        }
        if (old > 0) {
            int32_t carried = order[0];
            for (int64_t at = 1; at < old; at++)
                if (stays(carried, order[at])) {
                    std::swap(carried, order[at]);
                    place[order[at]] = int32_t(at);
                }
            order[old] = carried, place[carried] = int32_t(old);
        }
        order[0] = page, place[page] = 0, last[page] = i;
        if (kind == 1) rank[page]++;
        if (kind == 2) rank[page]--;
        // never again in this sequence: further than everything, and further for larger pages.
        if (kind == 3) rank[page] = -(int64_t(next[i]) < end ? int64_t(next[i]) : end + page);
    }
    const Requests& r;
    int kind;
    int64_t window;
    const uint32_t* next;
    std::vector<int64_t> rank;
    std::vector<int32_t> place;
    std::vector<int64_t> last;
    std::vector<int32_t> order;
};

}  // namespace

extern "C" {

// Each returns -1 when it ran, -2 when memory ran out; the first also the index of a set whose pages do not ascend.

// Policy: 0 least recently used, 1 least frequently used, 2 furthest next use. Event, of one cache or null: HIT, FREE,
// or the page that left.
int64_t workbench_paging(int64_t sets, int64_t pages, const int32_t* page, const int64_t* start, int policy,
                         int64_t caches, const int64_t* capacity, int64_t* hits, int64_t* evictions, int32_t* event) {
    try {
        const Requests requests{sets, pages, page, start};
        const int64_t fault = requests.fault();
        if (fault >= 0) return fault;
        const std::vector<uint32_t> next = policy == 2 ? requests.next() : std::vector<uint32_t>();
        const auto all = policy == 0 ? run<LRU> : policy == 1 ? run<LFU> : run<MIN>;
        all(requests, next.data(), capacity, caches, hits, evictions, event);
        return -1;
    } catch (const std::bad_alloc&) {
        return -2;
    }
}

// Sequences are runs of sets, each with a stack of its own; reuse and cold have a row of pages for each.
int64_t workbench_stack(int64_t sets, int64_t pages, const int32_t* page, const int64_t* start, int kind, int64_t window,
                        int64_t sequences, const int64_t* sequence, int64_t* reuse, int64_t* cold) {
    try {
        const Requests requests{sets, pages, page, start};
        const std::vector<uint32_t> next = kind == 3 ? requests.next() : std::vector<uint32_t>();
        Stack stack(requests, kind, window, next.data());
        for (int64_t q = 0; q < sequences; q++)
            stack.run(sequence[q], sequence[q + 1], reuse + q * pages, cold + q * pages);
        return -1;
    } catch (const std::bad_alloc&) {
        return -2;
    }
}
}
