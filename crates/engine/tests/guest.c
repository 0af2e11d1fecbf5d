/* A guest of our own, for KVMs on which no Linux comes up: it drives the machine's devices as a kernel
 * does and tells on COM1 what it found. What it does is what its command line says, one word each.
 * Entered in 64-bit mode with the first 4 GiB mapped to themselves. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define COMMAND_LINE ((const char *)0x20000)
#define ECAM 0xe8000000ull
#define LAPIC 0xfee00000ull
#define COM1 0x3f8
#define PM 0x600

static void outb(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static void outw(u16 port, u16 value) { asm volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static void outl(u16 port, u32 value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port)); }
static u8 inb(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static u16 inw(u16 port) { u16 v; asm volatile("inw %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static u32 inl(u16 port) { u32 v; asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port)); return v; }
static volatile u8 *at8(u64 a) { return (volatile u8 *)a; }
static volatile u16 *at16(u64 a) { return (volatile u16 *)a; }
static volatile u32 *at32(u64 a) { return (volatile u32 *)a; }

static void say(const char *text) { while (*text) outb(COM1, *text++); }
static void number(u64 n)
{
    char digits[21];
    int i = 20;
    for (digits[20] = 0; i == 20 || n; n /= 10) digits[--i] = '0' + n % 10;
    say(digits + i);
}
static void tell(const char *what, u64 n) { say(what); say(" "); number(n); say("\n"); }
static void off(void) { outw(PM + 4, 5 << 10 | 1 << 13); for (;;) asm volatile("hlt"); }

/* Interrupts: vectors 0x40 and up are counted. */
static volatile u32 came[8];
struct frame;
#define HANDLER(n) __attribute__((interrupt)) static void handler##n(struct frame *f) \
    { (void)f; came[n]++; *at32(LAPIC + 0xb0) = 0; }
HANDLER(0) HANDLER(1) HANDLER(2) HANDLER(3)
static struct { u16 low, selector; u8 ist, type; u16 middle; u32 high, zero; } idt[256];
static void gate(int vector, void *handler)
{
    u64 a = (u64)handler;
    idt[vector].low = a; idt[vector].selector = 0x10; idt[vector].type = 0x8e;
    idt[vector].middle = a >> 16; idt[vector].high = a >> 32;
}
static void interrupts_on(void)
{
    struct { u16 limit; u64 base; } __attribute__((packed)) table = {sizeof idt - 1, (u64)idt};
    gate(0x40, handler0); gate(0x41, handler1); gate(0x42, handler2); gate(0x43, handler3);
    outb(0x21, 0xff); outb(0xa1, 0xff);
    asm volatile("lidt %0" : : "m"(table));
    *at32(LAPIC + 0xf0) = 0x1ff;
    asm volatile("sti");
}

/* A virtio device: the queue of n descriptors, in memory of its own. */
struct descriptor { u64 address; u32 len; u16 flags, next; };
#define RING 8
struct queue {
    struct descriptor d[RING];
    volatile u16 avail[2 + RING + 1] __attribute__((aligned(2)));
    struct { volatile u16 flags, index; struct { u32 id, len; } ring[RING]; u16 event; } used __attribute__((aligned(4)));
};
struct device { u64 bar; struct queue *q[2]; };
static struct queue queues[4][2];

static u64 find(u16 kind)
{
    for (u64 slot = 1; slot < 32; slot++) {
        u64 config = ECAM + (slot << 15);
        if (*at32(config) >> 16 == 0x1040u + kind) return config;
    }
    return 0;
}

static int begin(struct device *dev, u16 kind, int number_, int n_queues)
{
    u64 config = find(kind);
    if (!config) return 0;
    u64 bar = dev->bar = *at32(config + 0x10) & ~0xfull;
    *at16(config + 4) = 6;
    u8 cap = *at8(config + 0x34);
    while (cap && *at8(config + cap) != 0x11) cap = *at8(config + cap + 1);
    if (!cap) return 0;
    *at16(config + cap + 2) = 0x8000;
    for (int v = 0; v < n_queues; v++) {
        u64 entry = bar + (*at32(config + cap + 4) & ~7u) + 16 * v;
        *at32(entry) = 0xfee00000; *at32(entry + 4) = 0;
        *at32(entry + 8) = 0x40 + v; *at32(entry + 12) = 0;
    }
    *at8(bar + 20) = 0; *at8(bar + 20) = 1; *at8(bar + 20) = 3;
    *at32(bar + 8) = 0; *at32(bar + 12) = kind == 2 ? 1 << 9 : 0; *at32(bar + 8) = 1; *at32(bar + 12) = 1;
    *at8(bar + 20) = 11;
    if (!(*at8(bar + 20) & 8)) return 0;
    for (int n = 0; n < n_queues; n++) {
        struct queue *q = dev->q[n] = &queues[number_][n];
        *at16(bar + 22) = n; *at16(bar + 24) = RING; *at16(bar + 26) = n;
        *at32(bar + 32) = (u64)q->d; *at32(bar + 36) = 0;
        *at32(bar + 40) = (u64)q->avail; *at32(bar + 44) = 0;
        *at32(bar + 48) = (u64)&q->used; *at32(bar + 52) = 0;
        *at16(bar + 28) = 1;
    }
    *at8(bar + 20) = 15;
    return !(*at8(bar + 20) & 0x40);
}

static void put(struct queue *q, int i, void *address, u32 len, u16 flags)
{
    q->d[i].address = (u64)address; q->d[i].len = len;
    q->d[i].flags = flags; q->d[i].next = i + 1;
}
static void offer(struct device *dev, int n)
{
    struct queue *q = dev->q[n];
    q->avail[2 + q->avail[1] % RING] = 0;
    asm volatile("mfence" ::: "memory");
    q->avail[1]++;
    asm volatile("mfence" ::: "memory");
    *at16(dev->bar + 0x3000 + 4 * n) = n;
}
/* Waits by interrupt, not by looking: an interrupt that is lost shows as a hang. */
static u32 done(struct device *dev, int n, u16 *seen)
{
    struct queue *q = dev->q[n];
    for (;;) {
        asm volatile("cli" ::: "memory");
        if (q->used.index != *seen && came[n]) break;
        asm volatile("sti; hlt" ::: "memory");
    }
    came[n] = 0;
    asm volatile("sti" ::: "memory");
    return q->used.ring[(*seen)++ % RING].len;
}

static u8 data[4096] __attribute__((aligned(4096)));
static struct { u32 kind, zero; u64 sector; } header;
static volatile u8 status;

static u8 disk(struct device *dev, u32 kind, u64 sector, u32 len, u16 *seen)
{
    int i = 0;
    header.kind = kind; header.sector = sector; status = 0xee;
    put(dev->q[0], i++, &header, 16, 1);
    if (len) put(dev->q[0], i++, data, len, kind == 0 ? 3 : 1);
    put(dev->q[0], i, (void *)&status, 1, 2);
    offer(dev, 0);
    done(dev, 0, seen);
    return status;
}

static void block(void)
{
    struct device dev;
    u16 seen = 0;
    u64 sum = 0;
    if (!begin(&dev, 2, 0, 1)) { say("no disk\n"); return; }
    tell("sectors", *at32(dev.bar + 0x2000));
    tell("read", disk(&dev, 0, 1, 4096, &seen));
    for (int i = 0; i < 4096; i++) sum = sum * 31 + data[i];
    tell("sum", sum);
    for (int i = 0; i < 4096; i++) data[i] = i * 7;
    tell("write", disk(&dev, 1, 9, 4096, &seen));
    tell("flush", disk(&dev, 4, 0, 0, &seen));
    tell("past", disk(&dev, 0, 1 << 30, 512, &seen));
}

static void net(void)
{
    struct device dev;
    u16 got = 0, sent = 0;
    if (!begin(&dev, 1, 1, 2)) { say("no card\n"); return; }
    for (int i = 0; i < 6; i++) { number(*at8(dev.bar + 0x2000 + i)); say(i < 5 ? ":" : "\n"); }
    say("listening\n");
    for (;;) {
        put(dev.q[0], 0, data, 2048, 2);
        offer(&dev, 0);
        u32 len = done(&dev, 0, &got);
        if (len == 12 + 4) break;
        /* Back it goes, its bytes turned around. */
        for (u32 i = 12, j = len - 1; i < j; i++, j--) { u8 b = data[i]; data[i] = data[j]; data[j] = b; }
        for (int i = 0; i < 12; i++) data[i] = 0;
        put(dev.q[1], 0, data, len, 0);
        offer(&dev, 1);
        done(&dev, 1, &sent);
    }
    say("net done\n");
}

static void rng(void)
{
    struct device dev;
    u16 seen = 0;
    u32 bits = 0;
    if (!begin(&dev, 4, 2, 1)) { say("no entropy\n"); return; }
    for (int i = 0; i < 64; i++) data[i] = 0;
    put(dev.q[0], 0, data, 64, 2);
    offer(&dev, 0);
    tell("random", done(&dev, 0, &seen));
    for (int i = 0; i < 64; i++) for (int b = 0; b < 8; b++) bits += data[i] >> b & 1;
    say(bits > 128 && bits < 384 ? "random enough\n" : "not random\n");
}

static void echo(void)
{
    say("echo\n");
    for (;;) {
        while (!(inb(COM1 + 5) & 1)) asm volatile("pause");
        u8 c = inb(COM1);
        if (c == '.') break;
        outb(COM1, c >= 'a' && c <= 'z' ? c - 32 : c);
    }
    say("\n");
}

static void button(void)
{
    outw(PM + 2, 1 << 8);
    say("waiting for the button\n");
    while (!(inw(PM) & 1 << 8)) asm volatile("pause");
    outw(PM, 1 << 8);
    say("pressed\n");
}

static void count(void)
{
    for (u64 n = 0;; n++) {
        if (inb(COM1 + 5) & 1) break;
        if (n % 200 == 0) outb(COM1, '+');
    }
    say("\n");
}

static void timer(void)
{
    u32 before = inl(PM + 8), after;
    outb(0x70, 0x32);
    tell("century", inb(0x71));
    while ((after = inl(PM + 8)) - before < 35795) asm volatile("pause");
    say("ten milliseconds\n");
}

/* Strings in one instruction each: bytes to the console, bytes from the clock. */
static void strings(void)
{
    const char *text = "more than the eight ports have\n";
    u64 n = 31;
    asm volatile("rep outsb" : "+S"(text), "+c"(n) : "d"((u16)COM1) : "memory");
    u8 bytes[12];
    u8 *to = bytes;
    outb(0x70, 0x32);
    n = sizeof bytes;
    asm volatile("rep insb" : "+D"(to), "+c"(n) : "d"((u16)0x71) : "memory");
    u64 same = 0;
    for (u64 i = 0; i < sizeof bytes; i++) same += bytes[i] == bytes[0];
    tell("century", bytes[0]);
    tell("times", same);
}

/* The PCI bus by its ports says what it says by addresses; of many registers named, the last counts. */
static void ports(void)
{
    u64 same = 0, devices = 0;
    for (u32 slot = 0; slot < 32; slot++)
        for (u32 offset = 0; offset < 64; offset += 4) {
            outl(0xcf8, 1u << 31 | 31 << 11);
            outl(0xcf8, 1u << 31 | slot << 11 | offset);
            u32 here = inl(0xcfc);
            same += here == *at32(ECAM + (slot << 15) + offset) && inw(0xcfe) == here >> 16;
            devices += !offset && here != ~0u;
        }
    tell("same", same);
    tell("devices", devices);
    for (u32 n = 0; n < 1000; n++) outl(0xcf8, n << 2);
    tell("named", inl(0xcf8) >> 2);
    outl(0xcf8, 1u << 31);
    outl(0xcf8, 0);
    tell("disabled", inl(0xcfc) == ~0u);
}

static int asks_for(const char *word)
{
    for (const char *line = COMMAND_LINE; *line;) {
        const char *w = word;
        while (*line == ' ') line++;
        while (*w && *w == *line) w++, line++;
        if (!*w && (*line == ' ' || !*line)) return 1;
        while (*line && *line != ' ') line++;
    }
    return 0;
}

void guest_main(void)
{
    say("guest\n");
    interrupts_on();
    if (asks_for("timer")) timer();
    if (asks_for("strings")) strings();
    if (asks_for("ports")) ports();
    if (asks_for("block")) block();
    if (asks_for("net")) net();
    if (asks_for("rng")) rng();
    if (asks_for("echo")) echo();
    if (asks_for("button")) button();
    if (asks_for("count")) count();
    if (asks_for("reset")) outb(0x64, 0xfe);
    say("off\n");
    off();
}

asm(".globl _start\n_start: lea stack_end(%rip), %rsp\n call guest_main\n1: hlt\n jmp 1b\n"
    ".bss\n.align 16\n.skip 16384\nstack_end:\n.text\n");
