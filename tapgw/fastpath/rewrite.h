// SPDX-License-Identifier: GPL-2.0-only
// Reading and rewriting of IP packets, with the results of internal/packet and nat/rewrite.go.
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "table.h"

#define VLAN_ID 0xfff  // in a tag

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

#define TCP_MIN 20
#define UDP_MIN 8

// packet is what a hit needs to know. Ports are in host order.
struct packet {
	struct addr src, dst;
	__u16 sport, dport;
	__u32 len;      // of the IP packet
	__u32 headers;  // IP and transport header
	__u32 seq_end, ack;
	__u8 proto, flags, ttl;
};

// header is the length of an IP header without options or extension headers.
static __always_inline __u32 header(enum family f)
{
	return f == V4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

static __always_inline __be16 ethertype(enum family f)
{
	return f == V4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
}

// accepts reports whether flags are those of the answer that accepts a connection.
static __always_inline int accepts(__u8 flags)
{
	return (flags & (TCP_SYN | TCP_ACK | TCP_FIN)) == (TCP_SYN | TCP_ACK);
}

static __always_inline int parse_tcp(enum family f, struct packet *p, const __u8 *l4, const void *end, enum direction d)
{
	__u32 room = p->len - header(f);

	if ((void *)l4 + TCP_MIN > end || p->len < header(f) + TCP_MIN)
		return -1;
	__u32 off = (l4[12] >> 4) * 4;
	p->flags = l4[13];
	if (off < TCP_MIN || off > room || p->flags & TCP_RST || (p->flags & TCP_SYN && (d == OUTBOUND || !accepts(p->flags))))
		return -1;
	p->headers = header(f) + off;
	p->seq_end = bpf_ntohl(*(__be32 *)(l4 + 4)) + room - off + (p->flags & TCP_FIN) + !!(p->flags & TCP_SYN);
	p->ack = bpf_ntohl(*(__be32 *)(l4 + 8));
	return 0;
}

static __always_inline int parse_udp(enum family f, struct packet *p, const __u8 *l4)
{
	__u32 room = p->len - header(f);
	__u32 len = bpf_ntohs(*(__be16 *)(l4 + 4));

	p->headers = header(f) + UDP_MIN;
	return p->len < p->headers || len < UDP_MIN || len > room ? -1 : 0;
}

// untag takes off a tag with a priority and no VLAN (IEEE 802.1Q), which some providers give all they send, as the host's
// stack does behind us. Packets of VLANs stay the host's.
static __always_inline int untag(struct __sk_buff *skb)
{
	return skb->vlan_tci & VLAN_ID || bpf_skb_vlan_pop(skb) ? -1 : 0;
}

static __always_inline struct addr ipv6(const struct in6_addr *a)
{
	const __be64 *half = (const void *)a;

	return (struct addr){bpf_be64_to_cpu(half[0]), bpf_be64_to_cpu(half[1])};
}

// words makes an address of IPv6 what the kernel's structures hold.
static __always_inline void words(__u32 *to, struct addr a)
{
	to[0] = bpf_htonl(a.hi >> 32), to[1] = bpf_htonl((__u32)a.hi);
	to[2] = bpf_htonl(a.lo >> 32), to[3] = bpf_htonl((__u32)a.lo);
}

// parse_ip reads an IP header: not 0 when it is unusual.
static __always_inline int parse_ip(enum family f, struct packet *p, const void *l3)
{
	if (f == V6) {
		const struct ipv6hdr *ip = l3;

		p->len = sizeof(*ip) + bpf_ntohs(ip->payload_len);
		p->src = ipv6(&ip->saddr), p->dst = ipv6(&ip->daddr), p->proto = ip->nexthdr, p->ttl = ip->hop_limit;
		return ip->version != 6;
	}
	const struct iphdr *ip = l3;

	if (ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
		return -1;
	p->len = bpf_ntohs(ip->tot_len);
	p->src = ipv4(ip->saddr), p->dst = ipv4(ip->daddr), p->proto = ip->protocol, p->ttl = ip->ttl;
	return p->len < sizeof(*ip);
}

// parse fills p from what can be a hit in a direction: not 0 for anything unusual, which is Go's. l2 is the length of the link header.
static __always_inline int parse(enum family f, struct __sk_buff *skb, __u32 l2, struct packet *p, enum direction d)
{
	__u32 need = l2 + header(f) + TCP_MIN;

	if (skb->protocol != ethertype(f) || (skb->vlan_present && untag(skb)))
		return -1;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + need > end) {
		__u32 want = skb->len < need ? skb->len : need;

		if (bpf_skb_pull_data(skb, want))
			return -1;
		data = (void *)(long)skb->data, end = (void *)(long)skb->data_end;
	}
	__u8 *l4 = data + l2 + header(f);
	if ((void *)(l4 + UDP_MIN) > end || parse_ip(f, p, data + l2) || p->len > skb->len - l2)
		return -1;
	p->sport = bpf_ntohs(*(__be16 *)l4), p->dport = bpf_ntohs(*(__be16 *)(l4 + 2));
	p->flags = 0, p->seq_end = 0, p->ack = 0;
	if (p->proto == IPPROTO_TCP)
		return parse_tcp(f, p, l4, end, d);
	return p->proto == IPPROTO_UDP ? parse_udp(f, p, l4) : -1;
}

// patch is RFC 1624 eqn. 3 for one replaced address.
static __always_inline __u16 patch(__u16 check, __be32 from, __be32 to)
{
	__u32 sum = (__u16)~check;

	sum += (__u16)~from + (__u16)(~from >> 16) + (__u16)to + (to >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// edit is the one address and port that change, and by how much the time to live shrinks.
struct edit {
	struct addr addr, to_addr;
	__u16 port, to_port;
	__u8 hops;
};

static __always_inline __be32 wire4(struct addr a)
{
	return bpf_htonl((__u32)a.lo);
}

// difference is what an address of IPv6 in place of another adds to a sum.
static __always_inline __u32 difference(struct addr from, struct addr to)
{
	__u64 sum = 0, words[] = {~bpf_cpu_to_be64(from.hi), ~bpf_cpu_to_be64(from.lo), bpf_cpu_to_be64(to.hi), bpf_cpu_to_be64(to.lo)};

#pragma unroll
	for (int i = 0; i < 4; i++)
		sum += (__u32)words[i] + (words[i] >> 32);
	sum = (__u32)sum + (sum >> 32);
	return sum + (sum >> 32);
}

// difference4 is what an address of IPv4, or a port, in place of another adds to a sum.
static __always_inline __u32 difference4(__be32 from, __be32 to)
{
	__u64 sum = (__u64)(__u32)~from + to;

	return (__u32)sum + (sum >> 32);
}

// fold makes a sum one of 16 bits.
static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum + (sum >> 16);
}

// What sk_buff.ip_summed says of a transport checksum.
#define CHECKSUM_COMPLETE 2  // a device has summed the whole packet
#define CHECKSUM_PARTIAL 3   // only the pseudo header is in it, the rest is left to a device

struct sk_buff {
	__u8 ip_summed : 2;
} __attribute__((preserve_access_index));

extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym __weak;

// summed is sk_buff.ip_summed: CHECKSUM_COMPLETE also where the kernel does not tell (before Linux 6.2).
static __always_inline int summed(struct __sk_buff *skb)
{
	if (!bpf_cast_to_kern_ctx)
		return CHECKSUM_COMPLETE;
	const struct sk_buff *kernels = bpf_cast_to_kern_ctx(skb);

	return BPF_CORE_READ_BITFIELD(kernels, ip_summed);
}

// change is what an edit adds to the sum of the pseudo header.
static __always_inline __u32 change(enum family f, const struct edit *e)
{
	return f == V4 ? difference4(wire4(e->addr), wire4(e->to_addr)) : difference(e->addr, e->to_addr);
}

// fix_complete has helpers bring a transport checksum up to date, and with it what a device has summed. That stays true of a whole
// packet of IPv6, as address and checksum make up for each other; the helper holds it for changed as in IPv4, where the header's
// checksum makes up for the address.
static __always_inline int fix_complete(enum family f, struct __sk_buff *skb, __u32 sum, const struct edit *e, __u64 zero)
{
	__u32 d = change(f, e);

	if (bpf_l4_csum_replace(skb, sum, 0, d, zero | BPF_F_PSEUDO_HDR))
		return TC_ACT_UNSPEC;
	if (f == V6)
		bpf_csum_update(skb, d);
	if (e->port != e->to_port && bpf_l4_csum_replace(skb, sum, bpf_htons(e->port), bpf_htons(e->to_port), zero | sizeof(__be16)))
		return TC_ACT_SHOT;
	return TC_ACT_OK;
}

// fix brings a transport checksum up to date that no device has summed (RFC 1624 eqn. 3). That of UDP may be missing, which 0 says.
static __always_inline void fix(enum family f, __u16 *check, const struct edit *e, int partial, int udp)
{
	if (udp && !*check)
		return;
	if (partial) {
		*check = fold((__u64)*check + change(f, e));
		return;
	}
	__u32 ports = difference4(bpf_htons(e->port), bpf_htons(e->to_port));
	__u16 now = ~fold((__u64)(__u16)~*check + change(f, e) + ports);

	*check = udp && !now ? 0xffff : now;
}

// age is what a router does to a packet whose time to live allows it (RFC 1812 section 5.3.1, RFC 8200 section 3).
static __always_inline void age(enum family f, void *l3)
{
	if (f == V6) {
		((struct ipv6hdr *)l3)->hop_limit--;
		return;
	}
	struct iphdr *ip = l3;
	__u32 sum = ip->check + bpf_htons(0x100);

	ip->check = sum + (sum >= 0xffff);
	ip->ttl--;
}

// put writes the address.
static __always_inline void put(enum family f, void *l3, const struct edit *e, enum direction d)
{
	if (f == V6) {
		struct ipv6hdr *ip = l3;
		__be64 *at = d == OUTBOUND ? (void *)&ip->saddr : (void *)&ip->daddr;

		at[0] = bpf_cpu_to_be64(e->to_addr.hi), at[1] = bpf_cpu_to_be64(e->to_addr.lo);
		return;
	}
	struct iphdr *ip = l3;

	ip->check = patch(ip->check, wire4(e->addr), wire4(e->to_addr));
	if (d == OUTBOUND)
		ip->saddr = wire4(e->to_addr);
	else
		ip->daddr = wire4(e->to_addr);
}

// rewrite changes source or destination. TC_ACT_OK when done, TC_ACT_UNSPEC when the packet is as before, TC_ACT_SHOT when
// it is neither.
static __always_inline int rewrite(enum family f, struct __sk_buff *skb, __u32 l2, const struct packet *p, struct edit e, enum direction d)
{
	int udp = p->proto == IPPROTO_UDP, known = summed(skb);
	__u32 l4 = l2 + header(f), sum = l4 + (udp ? 6 : 16);

	if (known == CHECKSUM_COMPLETE) {
		int done = fix_complete(f, skb, sum, &e, udp ? BPF_F_MARK_MANGLED_0 : 0);
		if (done != TC_ACT_OK)
			return done;
	}
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__be16 *ports = data + l4;
	__u16 *check = data + sum;
	if ((void *)(ports + 2) > end || (void *)(check + 1) > end)
		return TC_ACT_SHOT;
	if (known != CHECKSUM_COMPLETE)
		fix(f, check, &e, known == CHECKSUM_PARTIAL, udp);
	put(f, data + l2, &e, d);
	if (e.hops)
		age(f, data + l2);
	ports[d == OUTBOUND ? 0 : 1] = bpf_htons(e.to_port);
	return TC_ACT_OK;
}

// The extension headers (RFC 8200 section 4) that Go walks over.
#define HOP_BY_HOP 0
#define ROUTING 43
#define FRAGMENT 44
#define DESTINATION 60

// head is what the header of an IP packet tells of it.
struct head {
	struct addr src, dst;
	__u32 at;     // offset of what follows
	__be32 flow;  // as in struct bpf_fib_lookup
	__u8 proto, ttl;
	__u8 cut;  // a fragment; of IPv6 also what has other extension headers, as it may be one
};

static __always_inline int is_mapped(struct addr a)
{
	return !a.hi && a.lo >> 32 == MAPPED;
}

// read_head reads an IP header of any length at an offset: not 0 when there is none.
static __always_inline int read_head(enum family f, struct __sk_buff *skb, __u32 at, struct head *h)
{
	if (f == V6) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
			return -1;
		h->src = ipv6(&ip.saddr), h->dst = ipv6(&ip.daddr), h->proto = ip.nexthdr, h->ttl = ip.hop_limit;
		h->flow = *(__be32 *)&ip & bpf_htonl(0x0fffffff);
		h->at = at + sizeof(ip);
		h->cut = h->proto == HOP_BY_HOP || h->proto == ROUTING || h->proto == FRAGMENT || h->proto == DESTINATION;
		return is_mapped(h->src) || is_mapped(h->dst) ? -1 : 0;
	}
	struct iphdr ip;

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return -1;
	h->src = ipv4(ip.saddr), h->dst = ipv4(ip.daddr), h->proto = ip.protocol, h->ttl = ip.ttl;
	h->flow = ip.tos;
	h->at = at + ip.ihl * 4;
	h->cut = (ip.frag_off & bpf_htons(0x3fff)) != 0;
	return 0;
}
