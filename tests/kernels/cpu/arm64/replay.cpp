// Runs recorded calls of the kernels on another kind of machine: reads them, with the memory they see, and writes what
// they leave behind. Built for that machine and run by its emulator; test_arm64.py says how a recording looks.
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

static int64_t number(FILE* from) {
    int64_t value = 0;
    if (std::fread(&value, 8, 1, from) != 1) std::exit(3);
    return value;
}

// On a line of its own, as the tensors of PyTorch are.
static char* block(FILE* from, int64_t bytes) {
    char* memory = static_cast<char*>(std::aligned_alloc(64, (bytes + 127) / 64 * 64));
    if (bytes > 0 && std::fread(memory, bytes, 1, from) != 1) std::exit(3);
    return memory;
}

struct Blocks {
    std::vector<char*> at;
    std::vector<int64_t> bytes;
};

// Words of 8 bytes, some of which become places in the blocks.
static char* words(FILE* from, const Blocks& blocks) {
    const int64_t bytes = number(from);
    char* memory = block(from, bytes);
    for (int64_t left = number(from); left > 0; left--) {
        const int64_t where = number(from), which = number(from), inside = number(from);
        char* place = blocks.at[which] + inside;
        std::memcpy(memory + where, &place, 8);
    }
    return memory;
}

struct Step {
    int64_t count;
    int32_t threads;
    const int32_t* kinds;
    void* const* calls;
};

int main(int, char** argument) {
    void* library = dlopen(argument[1], RTLD_NOW);
    if (library == nullptr) {
        std::fprintf(stderr, "%s\n", dlerror());
        return 2;
    }
    FILE *from = std::fopen(argument[2], "rb"), *to = std::fopen(argument[3], "wb");
    for (int64_t left = number(from); left > 0; left--) {
        const int64_t length = number(from);
        const std::string name(block(from, length), length);
        const int64_t is_backward = number(from), form = number(from);
        Blocks blocks;
        for (int64_t more = number(from); more > 0; more--) {
            blocks.bytes.push_back(number(from));
            blocks.at.push_back(block(from, blocks.bytes.back()));
        }
        std::vector<int32_t> kinds;
        std::vector<void*> records;
        for (int64_t more = number(from); more > 0; more--) {
            kinds.push_back(int32_t(number(from)));
            records.push_back(words(from, blocks));
        }
        void* function = dlsym(library, name.c_str());
        int64_t result = -99;
        if (function == nullptr) return 4;
        if (form == 0) {  // a record
            result = reinterpret_cast<int (*)(void*, int, int)>(function)(records[0], int(is_backward), 0);
        } else if (form == 1) {  // a step of several
            Step step{int64_t(records.size()), 2, kinds.data(), records.data()};
            result = reinterpret_cast<int (*)(void*, int, int)>(function)(&step, 0, 0);
        } else {  // plain arguments, ten at most
            int64_t a[10];
            std::memcpy(a, records[0], sizeof a);
            using Plain = int64_t (*)(int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t);
            result = reinterpret_cast<Plain>(function)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9]);
        }
        std::fwrite(&result, 8, 1, to);
        for (size_t i = 0; i < blocks.at.size(); i++) std::fwrite(blocks.at[i], 1, blocks.bytes[i], to);
    }
    std::fclose(to);
    return 0;
}
