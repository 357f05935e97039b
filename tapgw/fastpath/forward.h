// SPDX-License-Identifier: GPL-2.0-only
// The way out of a packet of a session: by its uplink, unless the host would route it elsewhere by now.
#pragma once

#include "count.h"
#include "rewrite.h"
#include "table.h"

#define AF_INET 2  // not to need the C library's headers
#define AF_INET6 10
#define NO_HIT (-2)  // none of the programs' results

// is_current reports whether a session and its uplink are as they were when the session was opened, and Go wants it used.
static __always_inline int is_current(const struct identity *id, const struct uplink *u)
{
	__u32 state = id->own & STATE_MASK;

	if (*(volatile __u32 *)&u->generation != GENERATION(id) || !(u->flags & UPLINK_USABLE))
		return 0;
	return state >= STATE_FIRST && state <= STATE_LAST;
}

// size is that of the largest packet that a packet becomes on the wire.
static __always_inline __u32 size(const struct packet *p, __u32 gso_size)
{
	return gso_size ? p->headers + gso_size : p->len;
}

// send sends a packet to its next hop: the gateway, or its destination where there is none.
static __always_inline int send(enum family f, __u32 ifindex, const __u32 *gateway, struct addr dst)
{
	struct bpf_redir_neigh next = {.nh_family = f == V4 ? AF_INET : AF_INET6};

	if (f == V4) {
		next.ipv4_nh = gateway[0] ? gateway[0] : wire4(dst);
		return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
	}
	if (gateway[0]) {
#pragma unroll
		for (int i = 0; i < 4; i++)
			next.ipv6_nh[i] = gateway[i];
	} else {
		words(next.ipv6_nh, dst);
	}
	return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
}

static __always_inline struct key outbound_key(const struct packet *p)
{
	return (struct key){p->src, p->dst, (__u64)p->sport << 48 | (__u64)p->dport << 32 | (__u64)p->proto << 8};
}

// way is the device by which the host would forward a packet between two addresses, 0 for none. One that is too big for
// it counts too: of a datagram, the last fragment must not go another way than those before.
static __always_inline __u32 way(enum family f, struct __sk_buff *skb, const struct head *h, struct addr src, struct addr dst)
{
	struct bpf_fib_lookup l = {.family = f == V4 ? AF_INET : AF_INET6, .l4_protocol = h->proto, .ifindex = skb->ifindex};

	if (f == V4) {
		l.tos = h->flow, l.ipv4_src = wire4(src), l.ipv4_dst = wire4(dst);
	} else {
		l.flowinfo = h->flow;
		words(l.ipv6_src, src);
		words(l.ipv6_dst, dst);
	}
	switch (bpf_fib_lookup(skb, &l, sizeof(l), 0)) {
	case BPF_FIB_LKUP_RET_SUCCESS:
	case BPF_FIB_LKUP_RET_NO_NEIGH:
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return l.ifindex;
	}
	return 0;
}

static __always_inline struct hop *hop_at(enum family f, __u32 n)
{
	n += f * HOPS;
	return bpf_map_lookup_elem(&hops, &n);
}

// hop_of returns the next hop of a session's replies, none when they go to the host.
static __always_inline struct hop *hop_of(enum family f, __u32 n)
{
	struct hop *h = hop_at(f, n);

	return h && *(volatile __u32 *)&h->ifindex ? h : 0;
}

// is_astray is goes_astray of any family.
static __always_inline int is_astray(enum family f, struct __sk_buff *skb, __u32 tap)
{
	struct head h;

	return read_head(f, skb, ETH_HLEN, &h) || way(f, skb, &h, h.src, h.dst) != tap;
}

// goes_astray and goes_astray6 report whether the host would no longer forward a packet of a session to the TAP.
static __noinline int goes_astray(struct __sk_buff *skb, __u32 tap)
{
	return is_astray(V4, skb, tap);
}

static __noinline int goes_astray6(struct __sk_buff *skb, __u32 tap)
{
	return is_astray(V6, skb, tap);
}

// forward sends a packet of a session by its uplink: TC_ACT_UNSPEC when Go must see it, which is as it was then. Where
// these programs are the router, TC_ACT_OK when the host would not forward to the TAP any more: that is looked at with the
// first packet after routes changed.
static __always_inline int forward(enum family f, struct __sk_buff *skb, const struct packet *p, const struct identity *id, __u32 n, __u8 hops)
{
	__u32 gso = skb->gso_size;
	struct uplink *u = uplink_of(f, id->ports & (UPLINKS - 1));
	struct counters *c = counts(f, OUTBOUND, n);
	struct edit e = {.addr = p->src, .port = p->sport, .to_port = id->ports >> 16, .hops = hops};

	if (!c || !u || other(f, id, n, OUTBOUND, &e.to_addr))
		return TC_ACT_UNSPEC;
	if (hops && (__s32)(*(volatile __u32 *)&c->seen - *(volatile __u32 *)&u->rerouted) <= 0 &&
	    (f == V4 ? goes_astray(skb, u->tap) : goes_astray6(skb, u->tap)))
		return TC_ACT_OK;
	if (!is_current(id, u) || size(p, gso) > u->mtu)
		return TC_ACT_UNSPEC;
	int done = rewrite(f, skb, ETH_HLEN, p, e, OUTBOUND);
	if (done != TC_ACT_OK)
		return done;
	count(c, p, gso, tick(u->clock));
	return u->flags & UPLINK_HEADERLESS ? bpf_redirect(u->ifindex, 0) : send(f, u->ifindex, u->gateway, p->dst);
}
