// The /init of the guests that engines are measured with: what it does, the kernel's command line
// says. Built with `cc -O2 -static -pthread`.
//
//   do=off     switches off, or restarts where end=restart says that the engine ends by that
//   do=wait    says so on the console, and waits for ever
//   do=reads   inserts the modules in /modules in their order, reads pieces of 4 KiB at random from
//              the first disk, past the guest's cache, and says how many it read in a second with one
//              and with 16 at a time; then as do=off

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>

enum { PIECE = 4096, MOST_THREADS = 16 };

static int disk;
static uint64_t pieces;
static unsigned reads_each;

static void fail(const char *what) {
    printf("BENCH failed: %m: %s\n", what);
    reboot(RB_POWER_OFF);
    reboot(RB_AUTOBOOT);
}

static void insert_modules(void) {
    FILE *order = fopen("/modules/order", "r");
    char name[200];
    while (order && fscanf(order, "%199s", name) == 1) {
        int file = open(name, O_RDONLY | O_CLOEXEC);
        if (file < 0 || syscall(SYS_finit_module, file, "", 0)) fail(name);
        close(file);
    }
}

static void open_disk(void) {
    mkdir("/dev", 0755);
    mount("dev", "/dev", "devtmpfs", 0, "");
    for (int tries = 0; tries < 1000; tries++) {
        disk = open("/dev/vda", O_RDONLY | O_DIRECT | O_CLOEXEC);
        if (disk >= 0) break;
        usleep(10000);
    }
    uint64_t bytes = 0;
    if (disk < 0 || ioctl(disk, BLKGETSIZE64, &bytes)) fail("/dev/vda");
    pieces = bytes / PIECE;
}

static void *read_pieces(void *seed) {
    // xorshift64*: each thread has places of its own.
    uint64_t state = 0x9e3779b97f4a7c15u * ((uintptr_t)seed + 1);
    void *piece = 0;
    if (posix_memalign(&piece, PIECE, PIECE)) fail("memory");
    for (unsigned n = 0; n < reads_each; n++) {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        uint64_t place = (state * 0x2545f4914f6cdd1du >> 16) % pieces;
        if (pread(disk, piece, PIECE, place * PIECE) != PIECE) fail("a read");
    }
    return 0;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void measure(unsigned n_threads, unsigned n_reads) {
    pthread_t threads[MOST_THREADS];
    reads_each = n_reads / n_threads;
    double start = now();
    for (uintptr_t n = 0; n < n_threads; n++)
        if (pthread_create(&threads[n], 0, read_pieces, (void *)n)) fail("a thread");
    for (unsigned n = 0; n < n_threads; n++) pthread_join(threads[n], 0);
    printf("BENCH reads %u %.0f\n", n_threads, n_reads / (now() - start));
}

static int wanted(const char *key, const char *value) {
    const char *found = getenv(key);
    return found && !strcmp(found, value);
}

int main(void) {
    setvbuf(stdout, 0, _IOLBF, 0);
    if (wanted("do", "wait")) {
        puts("BENCH waits");
        for (;;) pause();
    }
    if (wanted("do", "reads")) {
        insert_modules();
        open_disk();
        measure(1, 1000);
        measure(1, 10000);
        measure(16, 10000);
    }
    reboot(wanted("end", "restart") ? RB_AUTOBOOT : RB_POWER_OFF);
    for (;;) pause();
}
