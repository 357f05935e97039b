// SPDX-License-Identifier: GPL-2.0-only
// The session table that Go writes and this program reads. Layout, hash and search are those of nat/layout.go,
// nat/siphash.go and nat/index.go: nothing here may change alone.
#pragma once

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define SLOTS 8        // words in a bucket
#define UPLINKS 32     // uplink IDs
#define HOPS 256       // numbers of next hops towards the LAN; 0 is none
#define HOP_DEVICE 255 // instead of one: the inside is a socket that is bound to the TAP, where its replies must go
#define ADDRESSES 64   // outside addresses of an uplink
#define PORTS 65536
#define REGION 64      // buckets over which neighbouring ports are spread

enum direction { OUTBOUND, INBOUND };

// family is a constant wherever it is an argument, so that programs hold no question about it but the first. What there is for
// each uplink or hop comes first for IPv4, then for IPv6.
enum family { V4, V6, FAMILIES };

// addr is an address in host order, that of IPv4 mapped into IPv6 (RFC 4291 section 2.5.5.2).
struct addr {
	__u64 hi, lo;
};

#define MAPPED 0xffffULL  // above the 32 bits of an IPv4 address

static __always_inline struct addr ipv4(__be32 a)
{
	return (struct addr){0, MAPPED << 32 | bpf_ntohl(a)};
}

static __always_inline int is_same(struct addr a, struct addr b)
{
	return a.hi == b.hi && a.lo == b.lo;
}

// bucket: each word is tag << 32 | record number, 0 when free.
struct bucket {
	__u64 word[SLOTS];
};

struct identity {
	__u64 addrs;    // inside address << 32 | remote address; of IPv6 nothing
	__u64 ports;    // inside port << 48 | remote port << 32 | outside port << 16 | protocol << 8 | uplink
	__u64 outside;  // outside address << 32 | next hop towards the LAN << 24 | generation; of IPv6 without the address
	__u64 own;      // written by Go alone; the lowest bits are the state, and whether a helper must see the packets
};

// wide is the addresses of a record of IPv6.
struct wide {
	struct addr inside, remote, outside;
	__u64 unused[2];  // to the end of a cache line
};

struct counters {
	__u64 bytes;  // top bits: what a TCP direction has shown
	__u32 seen;   // tick of the last packet
	__u32 packets;
	__u32 seq_end;
	__u32 ack;
};

struct uplink {
	__u32 generation;  // of the sessions that work now
	__u32 flags;
	__u32 ifindex;
	__u32 mtu;
	__u32 gateway[4];  // network order, that of IPv4 in the first word; 0 when remotes are on the link
	__u8 mac[6];       // of the device
	__u16 unused;
	__u32 tap;         // interface index, the same for all uplinks, as is what follows
	__u32 upcall;      // interface index
	__u32 rerouted;    // tick of when the host's routes may have changed last
	__u32 shortcut;    // sessions of the family's LAN bypass the host's forwarding
	__u32 answered;    // tick of when Go last got an answer to a SYN; written by the programs alone
	__u32 unused2;
	__u64 clock;       // nanoseconds from CLOCK_MONOTONIC to the clock of the sessions
	struct addr host;  // address of the host on the TAP for which packets go on from the uplink, :: for none
};

// hop is where packets to a part of the LAN go next. 0 when they take the way through the host's stack.
struct hop {
	__u32 ifindex;
	__u32 mtu;
	__u32 gateway[4];  // as in struct uplink
};

// address is one outside address of an uplink and where the words of its ports are; NO_PORTS when they are not shared,
// or WHOLE_ADDRESS.
struct address {
	struct addr addr;
	__u32 tcp, udp;
};

struct addresses {
	__u32 count;
	__u32 unused;
	struct address list[ADDRESSES];
};

struct ports {
	__u32 word[PORTS];  // the upper two bits are 0 when the port is not ours
};

struct services {
	__u64 word[PORTS / 64];  // a bit for each UDP port
};

#define NO_PORTS 0xffffffff
#define WHOLE_ADDRESS 0xfffffffe  // for both: all that is sent to the address is ours
#define PORT_KIND (3U << 30)

#define UPLINK_USABLE 1
#define UPLINK_HEADERLESS 2  // no Ethernet header
#define UPLINK_READY 4       // packets can leave by it, whatever its health

#define GENERATION(id) ((__u32)(id)->outside & 0xffffff)
#define HOP(id) ((__u32)(id)->outside >> 24)

#define FIN_SEEN (1ULL << 63)
#define ACK_SEEN (1ULL << 61)

#define OUT_PORTS 0xffffffff0000ff00ULL  // of identity.ports: what an outbound packet tells
#define IN_PORTS 0x0000ffffffffffffULL   // what a reply tells

#define STATE_MASK 63  // with the bits of a helper and of turned packets, which make a state beyond the last
#define STATE_FIRST 2  // Active
#define STATE_OPENING 3
#define STATE_LAST 6   // TCPClosingIn: what comes after is over, or reset, and judged by Go

// Each array is mapped by Go, which also sets its size when loading.
#define ARRAY(name, value_type, entries)           \
	struct {                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);  \
		__uint(max_entries, entries);      \
		__uint(map_flags, BPF_F_MMAPABLE); \
		__type(key, __u32);                \
		__type(value, value_type);         \
	} name SEC(".maps")

ARRAY(index_out, struct bucket, 1);
ARRAY(index_in, struct bucket, 1);
ARRAY(records, struct identity, 1);
ARRAY(counts_out, struct counters, 1);
ARRAY(counts_in, struct counters, 1);
ARRAY(port_words, struct ports, 1);
ARRAY(index_out6, struct bucket, 1);
ARRAY(index_in6, struct bucket, 1);
ARRAY(records6, struct identity, 1);
ARRAY(wide6, struct wide, 1);
ARRAY(counts_out6, struct counters, 1);
ARRAY(counts_in6, struct counters, 1);
ARRAY(port_words6, struct ports, 1);
ARRAY(uplinks, struct uplink, FAMILIES *UPLINKS);
ARRAY(hops, struct hop, FAMILIES *HOPS);
ARRAY(outside, struct addresses, FAMILIES *UPLINKS);
ARRAY(udp_services, struct services, 1);

// client is a remote endpoint and the UDP service of the host that it speaks to.
struct client {
	struct addr addr, local;
	__u16 port, service;
	__u32 uplink;
};

// clients are those that Go has been told of, and in which tick.
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct client);
	__type(value, __u32);
} clients SEC(".maps");

// own tells which uplink has an address.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, FAMILIES *UPLINKS *ADDRESSES);
	__type(key, struct addr);
	__type(value, __u32);
} own SEC(".maps");

// prefix is one of IPv6, in network order.
struct prefix {
	__u32 bits;
	__be32 addr[4];
};

// prefixes are those outside that are translated, all of which is ours but addresses that the programs know otherwise.
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, FAMILIES *UPLINKS *ADDRESSES);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, __u8);
} prefixes SEC(".maps");

const volatile __u64 seed0;
const volatile __u64 seed1;
const volatile __u32 buckets;
const volatile __u32 buckets6;  // 0 where IPv6 is the host's alone

// key is a session as one side sees it: the address on that side, the remote one, and the masked word of identity.ports.
struct key {
	struct addr near, far;
	__u64 ports;
};

// pair is the addresses of IPv4, which share a word.
static __always_inline __u64 pair(struct key k)
{
	return k.near.lo << 32 | (__u32)k.far.lo;
}

static __always_inline __u64 rotl(__u64 v, int n)
{
	return v << n | v >> (64 - n);
}

struct sip {
	__u64 v0, v1, v2, v3;
};

static __always_inline void sip_round(struct sip *s)
{
	s->v0 += s->v1;
	s->v2 += s->v3;
	s->v1 = rotl(s->v1, 13) ^ s->v0;
	s->v3 = rotl(s->v3, 16) ^ s->v2;
	s->v0 = rotl(s->v0, 32);
	s->v2 += s->v1;
	s->v0 += s->v3;
	s->v1 = rotl(s->v1, 17) ^ s->v2;
	s->v3 = rotl(s->v3, 21) ^ s->v0;
	s->v2 = rotl(s->v2, 32);
}

static __always_inline void sip_word(struct sip *s, __u64 m)
{
	s->v3 ^= m;
	sip_round(s);
	s->v0 ^= m;
}

#define LOW_PORTS ((REGION - 1ULL) << 48 | (REGION - 1ULL) << 16)

// hash is SipHash-1-3 of the key's words but the lowest bits of its own side's port, turned by these.
static __always_inline __u64 hash(enum family f, struct key k)
{
	__u64 k0 = seed0, k1 = seed1;
	struct sip s = {
		k0 ^ 0x736f6d6570736575ULL, k1 ^ 0x646f72616e646f6dULL,
		k0 ^ 0x6c7967656e657261ULL, k1 ^ 0x7465646279746573ULL,
	};

	if (f == V4) {
		sip_word(&s, pair(k));
	} else {
		sip_word(&s, k.near.hi);
		sip_word(&s, k.near.lo);
		sip_word(&s, k.far.hi);
		sip_word(&s, k.far.lo);
	}
	sip_word(&s, k.ports & ~LOW_PORTS);
	sip_word(&s, (f == V4 ? 16ULL : 40ULL) << 56);
	s.v2 ^= 0xff;
	sip_round(&s);
	sip_round(&s);
	sip_round(&s);
	__u64 h = s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
	asm volatile("" : "+r"(h), "+r"(k.ports));  // or the ports are read too early, and kept where judge6 has no stack left
	return h ^ (k.ports >> 48 | k.ports >> 16) % REGION;
}

static __always_inline struct identity *record(enum family f, __u32 n)
{
	return f == V4 ? bpf_map_lookup_elem(&records, &n) : bpf_map_lookup_elem(&records6, &n);
}

// session returns record n when it is that of the key.
static __always_inline struct identity *session(enum family f, __u32 n, struct key k, enum direction d)
{
	struct identity *id = record(f, n);

	if (!id || (id->ports & (d == OUTBOUND ? OUT_PORTS : IN_PORTS)) != k.ports)
		return 0;
	if (f == V6) {
		struct wide *w = bpf_map_lookup_elem(&wide6, &n);

		return w && is_same(w->remote, k.far) && is_same(d == OUTBOUND ? w->inside : w->outside, k.near) ? id : 0;
	}
	if (d == OUTBOUND)
		return id->addrs == pair(k) ? id : 0;
	return id->outside >> 32 == (__u32)k.near.lo && (__u32)id->addrs == (__u32)k.far.lo ? id : 0;
}

// other is the address that packets of session n get: outbound the outside one, inbound the inside one.
static __always_inline int other(enum family f, const struct identity *id, __u32 n, enum direction d, struct addr *to)
{
	if (f == V4) {
		*to = (struct addr){0, MAPPED << 32 | (d == OUTBOUND ? id->outside : id->addrs) >> 32};
		return 0;
	}
	struct wide *w = bpf_map_lookup_elem(&wide6, &n);
	if (!w)
		return -1;
	*to = d == OUTBOUND ? w->outside : w->inside;
	return 0;
}

static __always_inline struct bucket *bucket(enum family f, enum direction d, __u32 n)
{
	if (f == V4)
		return d == OUTBOUND ? bpf_map_lookup_elem(&index_out, &n) : bpf_map_lookup_elem(&index_in, &n);
	return d == OUTBOUND ? bpf_map_lookup_elem(&index_out6, &n) : bpf_map_lookup_elem(&index_in6, &n);
}

static __always_inline struct counters *counts(enum family f, enum direction d, __u32 n)
{
	if (f == V4)
		return d == OUTBOUND ? bpf_map_lookup_elem(&counts_out, &n) : bpf_map_lookup_elem(&counts_in, &n);
	return d == OUTBOUND ? bpf_map_lookup_elem(&counts_out6, &n) : bpf_map_lookup_elem(&counts_in6, &n);
}

static __always_inline struct identity *search(enum family f, __u32 at, __u32 tag, struct key k, enum direction d, __u32 *n)
{
	struct bucket *b = bucket(f, d, at);

	if (!b)
		return 0;
#pragma unroll
	for (int i = 0; i < SLOTS; i++) {
		__u64 w = *(volatile __u64 *)&b->word[i];

		if (w >> 32 != tag || !w)
			continue;
		*n = w;
		struct identity *id = session(f, *n, k, d);
		if (id)
			return id;
	}
	return 0;
}

// find looks into both buckets of the key. An entry that Go moves meanwhile may be missed: then Go handles the packet.
static __always_inline struct identity *find(enum family f, struct key k, enum direction d, __u32 *n)
{
	__u64 h = hash(f, k), count = f == V4 ? buckets : buckets6;
	__u32 a = ((h >> 32) * count >> 32) ^ h % REGION;
	__u32 b = ((h >> 16 & 0xffffffff) * count >> 32) ^ h % REGION;

	if (a == b)
		b ^= 1;
	struct identity *id = search(f, a, h, k, d, n);
	return id ? id : search(f, b, h, k, d, n);
}

static __always_inline struct uplink *uplink_of(enum family f, __u32 n)
{
	n += f * UPLINKS;
	return bpf_map_lookup_elem(&uplinks, &n);
}
