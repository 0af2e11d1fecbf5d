/* Random reads and writes of a disk, each read checked: `scribble run DISK SEED SECONDS`, from two
 * processors with two processes each; and from outside, `scribble look FILE SEED`.
 *
 * A sector that was written says the seed, its own number, how often it was written, and what follows
 * from these in the rest of its 512 bytes. What is on the disk at the start counts: it may have been
 * written by an earlier run. A sector that was discarded holds zeros or what it held; any other content
 * than the last one, be it older, of another sector or of half a sector, ends the run with 1. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECTOR = 512, WORDS = SECTOR / 8, REGION = 64, WORKERS = 4, PROCESSORS = 2 };
#define MAYBE_ZERO 0x80000000u

static uint64_t seed, n_sectors;
static uint32_t *times;
static const char *disk;
static int fd;

static uint64_t mixed(uint64_t x)
{
    x ^= x >> 33; x *= 0xff51afd7ed558ccdull; x ^= x >> 33; x *= 0xc4ceb9fe1a85ec53ull;
    return x ^ x >> 33;
}

static void fill(uint64_t *words, uint64_t sector, uint32_t time)
{
    words[0] = 0x656c626269726373ull ^ seed;
    words[1] = sector;
    words[2] = time;
    for (int i = 3; i < WORDS; i++) words[i] = mixed(seed + sector * 0x10001 + ((uint64_t)time << 32) + i);
}

/* How often a sector was written, by what it says; 0 for zeros. -1: it says nothing that can be. */
static int64_t says(const uint64_t *words, uint64_t sector)
{
    uint64_t expected[WORDS], any = 0;
    for (int i = 0; i < WORDS; i++) any |= words[i];
    if (!any) return 0;
    if (words[2] == 0 || words[2] >= MAYBE_ZERO) return -1;
    fill(expected, sector, (uint32_t)words[2]);
    return memcmp(words, expected, SECTOR) ? -1 : (int64_t)words[2];
}

static void fail(const char *what, uint64_t sector)
{
    printf("GUEST %s: %s at sector %llu: %s\n", disk, what, (unsigned long long)sector, strerror(errno));
    exit(1);
}

static void wrong(const uint64_t *words, uint64_t sector)
{
    printf("GUEST %s: sector %llu was written %u times%s, and holds: %llx, of sector %llu, time %llu\n", disk,
        (unsigned long long)sector, times[sector] & ~MAYBE_ZERO,
        times[sector] & MAYBE_ZERO ? " and discarded" : "", (unsigned long long)words[0],
        (unsigned long long)words[1], (unsigned long long)words[2]);
    exit(1);
}

static void *buffer(void)
{
    void *bytes;
    if (posix_memalign(&bytes, 4096, REGION * SECTOR)) exit(2);
    return bytes;
}

static void check(uint64_t *words, uint64_t sector, int n)
{
    if (pread(fd, words, n * SECTOR, sector * SECTOR) != n * SECTOR) fail("a read", sector);
    for (int i = 0; i < n; i++, words += WORDS) {
        int64_t said = says(words, sector + i);
        uint32_t last = times[sector + i];
        if (said != (last & ~MAYBE_ZERO) && !(said == 0 && last & MAYBE_ZERO)) wrong(words, sector + i);
    }
}

static void change(int request, uint64_t sector, int n)
{
    uint64_t range[2] = { sector * SECTOR, (uint64_t)n * SECTOR };
    for (int i = 0; i < n; i++) times[sector + i] = request == BLKZEROOUT ? 0 : times[sector + i] | MAYBE_ZERO;
    if (ioctl(fd, request, range)) fail(request == BLKZEROOUT ? "zeros" : "a discard", sector);
}

static void work(int worker, uint64_t seconds)
{
    uint64_t random = mixed(seed + worker + 1) | 1, *words = buffer(), counts[5] = { 0 };
    uint32_t clock = 1;
    struct timespec now, begun;
    cpu_set_t processor;
    CPU_ZERO(&processor);
    CPU_SET(worker % PROCESSORS, &processor);
    if (sched_setaffinity(0, sizeof processor, &processor)) fail("a processor", worker);
    for (uint64_t sector = 0; sector < n_sectors; sector++)
        if ((times[sector] & ~MAYBE_ZERO) >= clock) clock = (times[sector] & ~MAYBE_ZERO) + 1;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    do {
        random ^= random << 13; random ^= random >> 7; random ^= random << 17;
        uint64_t choice = mixed(random);
        uint64_t region = choice % (n_sectors / REGION / WORKERS) * WORKERS + worker;
        int from = choice >> 32 & 63, n = 1 + (choice >> 40 & 63) % (REGION - from), kind = (choice >> 48) % 100;
        uint64_t sector = region * REGION + from;
        if (kind < 45) {
            for (int i = 0; i < n; i++) fill(words + i * WORDS, sector + i, times[sector + i] = clock);
            clock++;
            if (pwrite(fd, words, n * SECTOR, sector * SECTOR) != n * SECTOR) fail("a write", sector);
            counts[0]++;
        } else if (kind < 85) {
            check(words, sector, n), counts[1]++;
        } else if (kind < 90) {
            change(BLKDISCARD, sector, n), counts[2]++;
        } else if (kind < 95) {
            change(BLKZEROOUT, sector, n), counts[3]++;
        } else {
            if (fsync(fd)) fail("a flush", sector);
            counts[4]++;
        }
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((uint64_t)(now.tv_sec - begun.tv_sec) < seconds);
    if (fsync(fd)) fail("a flush", 0);
    for (uint64_t region = worker; region < n_sectors / REGION; region += WORKERS) check(words, region * REGION, REGION);
    printf("GUEST %s: %llu writes, %llu reads, %llu discards, %llu zeroings, %llu flushes\n", disk,
        (unsigned long long)counts[0], (unsigned long long)counts[1], (unsigned long long)counts[2],
        (unsigned long long)counts[3], (unsigned long long)counts[4]);
}

/* Takes what is there for what was written. */
static uint64_t look(void)
{
    uint64_t *words = buffer(), written = 0;
    for (uint64_t sector = 0; sector < n_sectors; sector += REGION) {
        if (pread(fd, words, REGION * SECTOR, sector * SECTOR) != REGION * SECTOR) fail("a read", sector);
        for (int i = 0; i < REGION; i++) {
            int64_t said = says(words + i * WORDS, sector + i);
            if (said < 0) wrong(words + i * WORDS, sector + i);
            times[sector + i] = (uint32_t)said;
            written += said != 0;
        }
    }
    return written;
}

int main(int n, char **words)
{
    int runs = n == 5 && !strcmp(words[1], "run"), status, bad = 0;
    if (!runs && (n != 4 || strcmp(words[1], "look"))) return 2;
    disk = words[2];
    seed = strtoull(words[3], NULL, 0);
    fd = open(disk, runs ? O_RDWR | O_DIRECT : O_RDONLY);
    if (fd < 0) fail("an opening", 0);
    n_sectors = lseek(fd, 0, SEEK_END) / SECTOR / (REGION * WORKERS) * (REGION * WORKERS);
    times = mmap(NULL, n_sectors * 4, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (times == MAP_FAILED) fail("memory", 0);
    printf("GUEST %s: %llu of %llu sectors were written before\n", disk, (unsigned long long)look(),
        (unsigned long long)n_sectors);
    fflush(stdout);
    for (int worker = 0; runs && worker < WORKERS; worker++)
        if (!fork()) return work(worker, strtoull(words[4], NULL, 0)), fflush(stdout), 0;
    while (wait(&status) > 0) bad |= status;
    return bad != 0;
}
