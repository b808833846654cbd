// What device.cuh takes from CUDA, for a host compiler: the emulated run-time, and the instructions as plain functions.
#pragma once

#include "emulator.hpp"

#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>((uintptr_t(host::shared_memory.data()) + 15) / 16 * 16)

typedef uintptr_t shared_address_t;

inline shared_address_t shared_address(const void* pointer) {
    uintptr_t at = uintptr_t(pointer), start = uintptr_t(host::shared_memory.data());
    if (at < start || at >= start + host::shared_memory.size()) host::fail("an address outside dynamic shared memory");
    return at;
}

namespace host {

inline float half_to_float(unsigned short bits) {
    _Float16 value;
    std::memcpy(&value, &bits, 2);
    return float(value);
}

inline unsigned short float_to_half(float x) {
    _Float16 value = _Float16(x);
    unsigned short bits;
    std::memcpy(&bits, &value, 2);
    return bits;
}

inline float bfloat_to_float(unsigned short bits) { return __uint_as_float(unsigned(bits) << 16); }

// To nearest, ties to even.
inline unsigned short float_to_bfloat(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

#if ELEMENT == 1
inline float widen(unsigned short bits) { return half_to_float(bits); }
inline unsigned short narrow(float x) { return float_to_half(x); }
#else
inline float widen(unsigned short bits) { return bfloat_to_float(bits); }
inline unsigned short narrow(float x) { return float_to_bfloat(x); }
#endif

}  // namespace host

inline float2 unpack_pair(unsigned pair) { return {host::widen(pair & 0xffff), host::widen(pair >> 16)}; }
inline unsigned pack_pair(float low, float high) { return unsigned(host::narrow(low)) | unsigned(host::narrow(high)) << 16; }
inline float exp2_fast(float x) { return std::exp2(x); }

// A copy reads its source at once and writes its target when it is waited for, which is the latest moment a GPU may choose.
inline void copy_async(shared_address_t to, const void* from, bool valid) {
    if (to % 16 || (valid && uintptr_t(from) % 16)) host::fail("an asynchronous copy of 16 bytes that are not aligned");
    uintptr_t start = uintptr_t(host::shared_memory.data());
    if (to < start || to + 16 > start + host::shared_memory.size()) host::fail("a copy outside dynamic shared memory");
    host::Copy copy = {reinterpret_cast<void*>(to), {}};
    if (valid) std::memcpy(copy.bytes, from, 16);
    host::self().copies.back().push_back(copy);
}

inline void copy_commit() { host::self().copies.emplace_back(); }

template <int open>
inline void copy_wait() {
    auto& groups = host::self().copies;
    while (groups.size() > open + 1) {
        for (const host::Copy& copy : groups.front()) std::memcpy(copy.to, copy.bytes, 16);
        groups.erase(groups.begin());
    }
}

#if ELEMENT != 0
// ldmatrix.x4: lane l gives the address of row l % 8 of matrix l / 8. A lane receives, of each matrix, two values of row lane / 4
// from column 2 (lane % 4) on; transposed, two values of column lane / 4 from row 2 (lane % 4) on.
inline void load_rows(unsigned* r, const unsigned short* row, bool transposed) {
    if (uintptr_t(row) % 16) host::fail("a row of a matrix that is not aligned");
    uint64_t word = uintptr_t(row);
    auto words = host::exchange(&word, 1);
    int line = host::lane() / 4, pair = host::lane() % 4 * 2;
    for (int matrix = 0; matrix < 4; matrix++) {
        auto at = [&](int y, int x) -> unsigned { return reinterpret_cast<const unsigned short*>(words[matrix * 8 + y][0])[x]; };
        r[matrix] = transposed ? at(pair, line) | at(pair + 1, line) << 16 : at(line, pair) | at(line, pair + 1) << 16;
    }
    host::exchange(nullptr, 0);  // the rows are read before any lane goes on to overwrite them
}
inline void load_matrices(unsigned* r, const unsigned short* row) { load_rows(r, row, false); }
inline void load_transposed(unsigned* r, const unsigned short* row) { load_rows(r, row, true); }

// mma.m16n8k16: with group = lane / 4 and t = lane % 4, a[0] holds row group, columns 2t and 2t + 1 of A; a[1] row group + 8;
// a[2] and a[3] the same rows 8 columns on. b0 holds rows 2t and 2t + 1 of column group of B, b1 8 rows on. c holds columns 2t and
// 2t + 1 of rows group and group + 8.
inline void multiply(float* c, const unsigned* a, unsigned b0, unsigned b1) {
    uint64_t own[6] = {a[0], a[1], a[2], a[3], b0, b1};
    auto words = host::exchange(own, 6);
    int group = host::lane() / 4, t = host::lane() % 4;
    for (int i = 0; i < 4; i++) {
        int half = i / 2, column = 2 * t + i % 2;
        float sum = 0;
        for (int k = 0; k < 16; k++) {
            unsigned x = words[group * 4 + k % 8 / 2][half + k / 8 * 2], y = words[column * 4 + k % 8 / 2][4 + k / 8];
            sum += host::widen(x >> 16 * (k % 2) & 0xffff) * host::widen(y >> 16 * (k % 2) & 0xffff);
        }
        c[i] += sum;
    }
}
#endif
