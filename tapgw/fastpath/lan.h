// SPDX-License-Identifier: GPL-2.0-only
// Packets from the LAN past the host's own forwarding.
#pragma once

#include "forward.h"
#include "judge.h"
#include "rewrite.h"
#include "table.h"
#include "upcall.h"

// lan_upcall hands a packet of the LAN to Go as the host's own forwarding would have.
static __always_inline int lan_upcall(enum family f, struct __sk_buff *skb, __u8 ttl)
{
	if (ttl <= 1 || bpf_skb_pull_data(skb, ETH_HLEN + header(f)))
		return TC_ACT_UNSPEC;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	if (data + ETH_HLEN + header(f) > end)
		return TC_ACT_UNSPEC;
	age(f, data + ETH_HLEN);
	return upcall(f, skb, ETH_HLEN, TAG_LAN);
}

// to_tap reports whether the host would forward a packet to the TAP, and answers to it back to where it came from, so that its
// session would bypass that.
static __always_inline int to_tap(enum family f, struct __sk_buff *skb, const struct head *h)
{
	struct uplink *any = uplink_of(f, 0);

	return any && any->shortcut && way(f, skb, h, h->src, h->dst) == any->tap && way(f, skb, h, h->dst, h->src) == skb->ifindex;
}

// is_shortcut reports whether the packets of a session bypass the host's forwarding on a device of the LAN.
static __always_inline int is_shortcut(enum family f, const struct identity *id, __u32 ifindex)
{
	struct hop *h = hop_at(f, HOP(id));

	return h && *(volatile __u32 *)&h->ifindex == ifindex;
}

// lan_other is lan_miss of any family.
static __always_inline int lan_other(enum family f, struct __sk_buff *skb)
{
	struct head h;
	__be16 ports[2];
	__u32 n = 0;

	if (skb->protocol != ethertype(f) || skb->vlan_present || read_head(f, skb, ETH_HLEN, &h))
		return TC_ACT_UNSPEC;
	if (h.cut && (f == V6 || has_ports(f, h.proto)))
		return to_tap(f, skb, &h) ? lan_upcall(f, skb, h.ttl) : TC_ACT_UNSPEC;
	if ((h.proto != IPPROTO_TCP && h.proto != IPPROTO_UDP) || bpf_skb_load_bytes(skb, h.at, ports, sizeof(ports)))
		return TC_ACT_UNSPEC;
	struct packet p = {
		.src = h.src, .dst = h.dst, .proto = h.proto, .sport = bpf_ntohs(ports[0]), .dport = bpf_ntohs(ports[1]),
	};
	struct identity *id = find(f, outbound_key(&p), OUTBOUND, &n);
	if (id ? is_shortcut(f, id, skb->ifindex) : to_tap(f, skb, &h))
		return lan_upcall(f, skb, h.ttl);
	return TC_ACT_UNSPEC;
}

// lan_miss and lan_miss6 hand to Go what is no hit of a session whose other packets bypass the host, or may begin one, or is a
// fragment of it: netfilter, which sees none of the others, would misjudge it.
static __noinline int lan_miss(struct __sk_buff *skb)
{
	return lan_other(V4, skb);
}

static __noinline int lan_miss6(struct __sk_buff *skb)
{
	return lan_other(V6, skb);
}

static __always_inline int lan_hit(enum family f, struct __sk_buff *skb)
{
	struct packet p;
	__u32 n = 0;

	if (parse(f, skb, ETH_HLEN, &p, OUTBOUND))
		return NO_HIT;
	struct identity *id = find(f, outbound_key(&p), OUTBOUND, &n);
	if (!id)
		return NO_HIT;
	if (p.ttl <= 1 || !is_shortcut(f, id, skb->ifindex))
		return TC_ACT_UNSPEC;
	int done = forward(f, skb, &p, id, n, 1);
	if (done == TC_ACT_UNSPEC)
		return lan_upcall(f, skb, p.ttl);
	return done == TC_ACT_OK ? TC_ACT_UNSPEC : done;
}

static __noinline int lan_hit6(struct __sk_buff *skb)
{
	return lan_hit(V6, skb);
}
