// SPDX-License-Identifier: GPL-2.0-only
// Reading and rewriting of IPv4 packets, with the results of internal/packet and nat/rewrite.go.
#pragma once

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
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
#define HEADERS_MAX (sizeof(struct iphdr) + TCP_MIN)  // what is read of a packet

// packet is what a hit needs to know. Addresses and ports are in host order.
struct packet {
	__u32 src, dst;
	__u16 sport, dport;
	__u32 len;      // IPv4 total length
	__u32 headers;  // IPv4 and transport header
	__u32 seq_end, ack;
	__u8 proto, flags, ttl;
};

static __always_inline int parse_tcp(struct packet *p, const __u8 *l4, const void *end)
{
	__u32 room = p->len - sizeof(struct iphdr);

	if ((void *)l4 + TCP_MIN > end || p->len < HEADERS_MAX)
		return -1;
	__u32 off = (l4[12] >> 4) * 4;
	p->flags = l4[13];
	if (off < TCP_MIN || off > room || p->flags & (TCP_SYN | TCP_RST))
		return -1;
	p->headers = sizeof(struct iphdr) + off;
	p->seq_end = bpf_ntohl(*(__be32 *)(l4 + 4)) + room - off + (p->flags & TCP_FIN);
	p->ack = bpf_ntohl(*(__be32 *)(l4 + 8));
	return 0;
}

static __always_inline int parse_udp(struct packet *p, const __u8 *l4)
{
	__u32 room = p->len - sizeof(struct iphdr);
	__u32 len = bpf_ntohs(*(__be16 *)(l4 + 4));

	p->headers = sizeof(struct iphdr) + UDP_MIN;
	return p->len < p->headers || len < UDP_MIN || len > room ? -1 : 0;
}

// untag takes off a tag with a priority and no VLAN (IEEE 802.1Q), which some providers give all they send, as the host's
// stack does behind us. Packets of VLANs stay the host's.
static __always_inline int untag(struct __sk_buff *skb)
{
	return skb->vlan_tci & VLAN_ID || bpf_skb_vlan_pop(skb) ? -1 : 0;
}

// parse fills p from what can be a hit: not 0 for anything unusual, which is Go's. l2 is the length of the link header.
static __always_inline int parse(struct __sk_buff *skb, __u32 l2, struct packet *p)
{
	if (skb->protocol != bpf_htons(ETH_P_IP) || (skb->vlan_present && untag(skb)))
		return -1;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + l2 + HEADERS_MAX > end) {
		__u32 want = skb->len < l2 + HEADERS_MAX ? skb->len : l2 + HEADERS_MAX;

		if (bpf_skb_pull_data(skb, want))
			return -1;
		data = (void *)(long)skb->data, end = (void *)(long)skb->data_end;
	}
	struct iphdr *ip = data + l2;
	__u8 *l4 = (void *)(ip + 1);
	if ((void *)(l4 + UDP_MIN) > end || ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
		return -1;
	p->len = bpf_ntohs(ip->tot_len);
	if (p->len < sizeof(*ip) || p->len > skb->len - l2)
		return -1;
	p->src = bpf_ntohl(ip->saddr), p->dst = bpf_ntohl(ip->daddr), p->proto = ip->protocol, p->ttl = ip->ttl;
	p->sport = bpf_ntohs(*(__be16 *)l4), p->dport = bpf_ntohs(*(__be16 *)(l4 + 2));
	p->flags = 0, p->seq_end = 0, p->ack = 0;
	if (p->proto == IPPROTO_TCP)
		return parse_tcp(p, l4, end);
	return p->proto == IPPROTO_UDP ? parse_udp(p, l4) : -1;
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
	__u32 addr, to_addr;
	__u16 port, to_port;
	__u8 hops;
};

// age is what a router does to a packet whose time to live allows it (RFC 1812 section 5.3.1).
static __always_inline void age(struct iphdr *ip)
{
	__u32 sum = ip->check + bpf_htons(0x100);

	ip->check = sum + (sum >= 0xffff);
	ip->ttl--;
}

// rewrite changes source or destination. TC_ACT_OK when done, TC_ACT_UNSPEC when the packet is as before, TC_ACT_SHOT when
// it is neither. Only the helpers know whether the transport checksum is complete or left to the device, so they patch it.
static __always_inline int rewrite(struct __sk_buff *skb, __u32 l2, const struct packet *p, struct edit e, enum direction d)
{
	int udp = p->proto == IPPROTO_UDP;
	__u32 l4 = l2 + sizeof(struct iphdr), sum = l4 + (udp ? 6 : 16);
	__u64 zero = udp ? BPF_F_MARK_MANGLED_0 : 0;
	__be32 from = bpf_htonl(e.addr), to = bpf_htonl(e.to_addr);
	__be16 port = bpf_htons(e.port), to_port = bpf_htons(e.to_port);

	if (bpf_l4_csum_replace(skb, sum, from, to, BPF_F_PSEUDO_HDR | zero | sizeof(to)))
		return TC_ACT_UNSPEC;
	if (port != to_port && bpf_l4_csum_replace(skb, sum, port, to_port, zero | sizeof(to_port)))
		return TC_ACT_SHOT;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + l2;
	__be16 *ports = (void *)(ip + 1);
	if ((void *)(ports + 2) > end)
		return TC_ACT_SHOT;
	ip->check = patch(ip->check, from, to);
	if (e.hops)
		age(ip);
	if (d == OUTBOUND)
		ip->saddr = to, ports[0] = to_port;
	else
		ip->daddr = to, ports[1] = to_port;
	return TC_ACT_OK;
}
