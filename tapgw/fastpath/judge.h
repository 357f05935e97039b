// SPDX-License-Identifier: GPL-2.0-only
// Whose received packets are that are no hits, with tapgw/inbound.go as the judge.
#pragma once

#include "rewrite.h"
#include "table.h"
#include "upcall.h"

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP_TIMESTAMP 13
#define ICMP_TIMESTAMP_REPLY 14

// Types of ICMPv6 (RFC 4443). Those from the first local one to the last, and LISTENER, never leave their link: neighbour and
// multicast listener discovery (RFC 4861, RFC 3810).
#define ICMP6_UNREACHABLE 1
#define ICMP6_PARAMETER 4
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_FIRST_LOCAL 130
#define ICMP6_LAST_LOCAL 137
#define ICMP6_LISTENER 143

// place_of finds an address among those of an uplink, ADDRESSES for nowhere; the number is that of the uplink to the address's family.
// It is global, as are others here, so that the verifier reads it once, not once for each way to it.
__noinline __u64 place_of(__u32 number, __u64 hi, __u64 lo)
{
	struct addresses *all = bpf_map_lookup_elem(&outside, &number);

	if (!all)
		return ADDRESSES;
	for (__u32 i = 0; i < ADDRESSES && i < all->count; i++)
		if (is_same(all->list[i].addr, (struct addr){hi, lo}))
			return i;
	return ADDRESSES;
}

// address finds what the programs know of an outside address.
static __always_inline struct address *address(enum family f, __u32 uplink, struct addr a)
{
	__u32 number = f * UPLINKS + uplink;
	struct addresses *all = bpf_map_lookup_elem(&outside, &number);
	__u64 place = place_of(number, a.hi, a.lo);

	if (!all || place >= ADDRESSES)
		return 0;
	asm volatile("" : "+r"(place));  // or the compiler uses it before the comparison, which the verifier refuses
	return &all->list[place];
}

// port_is_ours reports whether an outside port is mapped or resting. Where that is not known, Go must say.
static __always_inline int port_is_ours(enum family f, const struct address *a, __u8 proto, __u16 port)
{
	__u32 n = proto == IPPROTO_TCP ? a->tcp : a->udp;

	if (n == NO_PORTS || n == WHOLE_ADDRESS)
		return 1;
	struct ports *p = f == V4 ? bpf_map_lookup_elem(&port_words, &n) : bpf_map_lookup_elem(&port_words6, &n);
	return p && *(volatile __u32 *)&p->word[port] & PORT_KIND;
}

// is_session and is_session6 report whether there is a session of an inbound key.
__noinline int is_session(const struct key *k)
{
	__u32 n = 0;

	return k && find(V4, *k, INBOUND, &n);
}

__noinline int is_session6(const struct key *k)
{
	__u32 n = 0;

	return k && find(V6, *k, INBOUND, &n);
}

// pair_is_ours reports whether there is a session of a protocol without ports, or of an ICMP query or a PPTP call with this
// identifier.
static __always_inline int pair_is_ours(enum family f, __u32 uplink, struct addr near, struct addr far, __u8 proto, __u16 identifier)
{
	struct key k = {near, far, (__u64)identifier << 16 | (__u64)proto << 8 | uplink};

	return f == V4 ? is_session(&k) : is_session6(&k);
}

static __always_inline int is_icmp(enum family f, __u8 proto)
{
	return proto == (f == V4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

// has_ports reports whether sessions of a protocol have a port, or identifier, of their own.
static __always_inline int has_ports(enum family f, __u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || is_icmp(f, proto);
}

static __always_inline int is_request(enum family f, __u8 type)
{
	return f == V4 ? type == ICMP_ECHO || type == ICMP_TIMESTAMP : type == ICMP6_ECHO;
}

// quote_is_ours judges an ICMP error by the packet that it quotes at an offset (RFC 5508 REQ-4).
static __always_inline int quote_is_ours(enum family f, struct __sk_buff *skb, __u32 at, __u32 uplink)
{
	struct head h;
	__u8 l4[8];

	if (read_head(f, skb, at, &h))
		return 0;
	struct address *a = address(f, uplink, h.src);
	if (!a)
		return 0;
	if (f == V6 && h.cut)
		return 1;
	if (!has_ports(f, h.proto))
		return pair_is_ours(f, uplink, h.src, h.dst, h.proto, 0);
	if (bpf_skb_load_bytes(skb, h.at, l4, sizeof(l4)))
		return 0;
	if (!is_icmp(f, h.proto))
		return port_is_ours(f, a, h.proto, bpf_ntohs(*(__be16 *)l4));
	return is_request(f, l4[0]) && pair_is_ours(f, uplink, h.src, h.dst, h.proto, bpf_ntohs(*(__be16 *)(l4 + 4)));
}

// The ways of an ICMP message.
enum message { NEITHER, REPLY, ERROR };

static __always_inline enum message message(enum family f, __u8 type)
{
	if (f == V6) {
		if (type == ICMP6_ECHO_REPLY)
			return REPLY;
		return type >= ICMP6_UNREACHABLE && type <= ICMP6_PARAMETER ? ERROR : NEITHER;
	}
	switch (type) {
	case ICMP_ECHO_REPLY:
	case ICMP_TIMESTAMP_REPLY:
		return REPLY;
	case ICMP_UNREACHABLE:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER:
		return ERROR;
	}
	return NEITHER;
}

static __always_inline int icmp_is_ours(enum family f, struct __sk_buff *skb, const struct head *h, const __u8 *l4, __u32 uplink)
{
	switch (message(f, l4[0])) {
	case REPLY:
		return pair_is_ours(f, uplink, h->dst, h->src, h->proto, bpf_ntohs(*(__be16 *)(l4 + 4)));
	case ERROR:
		return quote_is_ours(f, skb, h->at + 8, uplink);
	case NEITHER:
		break;
	}
	return 0;
}

// is_discovery reports whether a packet is one of ICMPv6 that never leaves its link.
static __always_inline int is_discovery(struct __sk_buff *skb, const struct head *h)
{
	__u8 type;

	if (h->proto != IPPROTO_ICMPV6 || bpf_skb_load_bytes(skb, h->at, &type, sizeof(type)))
		return 0;
	return (type >= ICMP6_FIRST_LOCAL && type <= ICMP6_LAST_LOCAL) || type == ICMP6_LISTENER;
}

static __always_inline int is_service(__u16 port)
{
	__u32 zero = 0;
	struct services *s = bpf_map_lookup_elem(&udp_services, &zero);

	return s && s->word[port / 64] >> (port % 64) & 1;
}

#define GRE_VERSION 7
#define GRE_ENHANCED 1
#define GRE_CALL 6  // offset of the call identifier

// call_is_ours reports whether a GRE packet is of a PPTP call with a session (RFC 2637 §4.1), or a fragment, which may be.
static __always_inline int call_is_ours(enum family f, struct __sk_buff *skb, const struct head *h, __u32 uplink)
{
	__u8 l4[8];

	if (h->cut)
		return 1;
	if (bpf_skb_load_bytes(skb, h->at, l4, sizeof(l4)) || (l4[1] & GRE_VERSION) != GRE_ENHANCED)
		return 0;
	return pair_is_ours(f, uplink, h->dst, h->src, IPPROTO_GRE, bpf_ntohs(*(__be16 *)(l4 + GRE_CALL)));
}

// home finds an outside address of the uplink that received a packet, or else of another, whose mappings it may then be for:
// Go drops such packets, and the host would answer them.
static __always_inline struct address *home(enum family f, __u32 *uplink, struct addr addr)
{
	struct address *a = address(f, *uplink, addr);
	__u32 *n = a ? 0 : bpf_map_lookup_elem(&own, &addr);

	if (!n)
		return a;
	*uplink = *n;
	return address(f, *uplink, addr);
}

// The ways of a received packet that is no hit.
enum whose { OTHERS, OURS, SERVICE };

// port_owner is who has the port that a TCP or UDP packet is for.
static __always_inline enum whose port_owner(enum family f, const struct head *h, const __u8 *l4, const struct address *a, __u32 uplink)
{
	__u16 port = bpf_ntohs(*(__be16 *)(l4 + 2));

	if (port_is_ours(f, a, h->proto, port))
		return OURS;
	if (h->proto != IPPROTO_UDP || !is_service(port))
		return OTHERS;
	struct client c = {h->src, h->dst, bpf_ntohs(*(__be16 *)l4), port, uplink};
	return told(&c) ? OTHERS : SERVICE;
}

// is_translated reports whether an address lies in a prefix that is.
static __always_inline int is_translated(struct addr a)
{
	struct prefix p = {.bits = 128};

	words(p.addr, a);
	return bpf_map_lookup_elem(&prefixes, &p) != 0;
}

// owner tells whose a received packet is (DESIGN of the gateway: one predicate for both datapaths).
static __always_inline enum whose owner(enum family f, struct __sk_buff *skb, __u32 l2, __u32 uplink)
{
	struct head h;
	__u8 l4[8];

	if (read_head(f, skb, l2, &h))
		return OTHERS;
	struct address *a = home(f, &uplink, h.dst);
	if (f == V6 && is_discovery(skb, &h))
		return OTHERS;
	if (!a)
		return f == V6 && is_translated(h.dst) ? OURS : OTHERS;
	if (a->tcp == WHOLE_ADDRESS || (f == V6 && h.cut))
		return OURS;
	if (!has_ports(f, h.proto) && pair_is_ours(f, uplink, h.dst, h.src, h.proto, 0))
		return OURS;
	if (h.proto == IPPROTO_GRE)
		return call_is_ours(f, skb, &h, uplink) ? OURS : OTHERS;
	if (!has_ports(f, h.proto))
		return OTHERS;
	if (h.cut)
		return OURS;
	if (bpf_skb_load_bytes(skb, h.at, l4, sizeof(l4)))
		return OTHERS;
	if (is_icmp(f, h.proto))
		return icmp_is_ours(f, skb, &h, l4, uplink) ? OURS : OTHERS;
	return port_owner(f, &h, l4, a, uplink);
}

__noinline int judge(struct __sk_buff *skb, __u32 l2, __u32 uplink)
{
	return owner(V4, skb, l2, uplink);
}

__noinline int judge6(struct __sk_buff *skb, __u32 l2, __u32 uplink)
{
	return owner(V6, skb, l2, uplink);
}
