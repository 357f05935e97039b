// SPDX-License-Identifier: GPL-2.0-only
// What goes to Go and comes back by the upcall device: received packets that are no hits but ours, with tapgw/inbound.go
// as the judge, and packets of the LAN that must not pass the host's own forwarding.
#pragma once

#include "rewrite.h"
#include "table.h"

#define ICMP_ECHO_REPLY 0
#define ICMP_UNREACHABLE 3
#define ICMP_ECHO 8
#define ICMP_TIME_EXCEEDED 11
#define ICMP_PARAMETER 12
#define ICMP_TIMESTAMP 13
#define ICMP_TIMESTAMP_REPLY 14

struct mac {
	__u8 b[ETH_ALEN];
};

// The last byte of the secret source address says what a frame on the upcall device is: up to UPLINKS the number of the
// uplink that received it.
#define TAG_COPY UPLINKS       // | the number of the uplink: the host has it too
#define TAG_LAN (2 * UPLINKS)  // from the LAN; or to it, by the hop in the last byte of the destination

const volatile struct mac tap_mac;
const volatile struct mac gateway_mac;
const volatile struct mac upcall_mac;
const volatile struct mac secret;

static __always_inline void set_mac(__u8 *to, const volatile struct mac *from)
{
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		to[i] = from->b[i];
}

// is_secret reports whether a source address is one of those that only Go and these programs know.
static __always_inline int is_secret(const __u8 *mac)
{
	__u8 differ = 0;

#pragma unroll
	for (int i = 0; i < ETH_ALEN - 1; i++)
		differ |= mac[i] ^ secret.b[i];
	return !differ;
}

static __always_inline struct uplink *uplink_of(__u32 n)
{
	return bpf_map_lookup_elem(&uplinks, &n);
}

// label makes an Ethernet header of the upcall device, and returns that device, 0 when there is none.
static __always_inline __u32 label(struct __sk_buff *skb, __u8 tag)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;
	struct uplink *any = uplink_of(0);

	if ((void *)(eth + 1) > end || !any)
		return 0;
	set_mac(eth->h_dest, &upcall_mac);
	set_mac(eth->h_source, &secret);
	eth->h_source[ETH_ALEN - 1] = tag;
	eth->h_proto = bpf_htons(ETH_P_IP);
	return any->upcall;
}

// upcall hands a packet to Go; l2 is the length of its link header.
static __always_inline int upcall(struct __sk_buff *skb, __u32 l2, __u8 tag)
{
	if (!l2 && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return TC_ACT_SHOT;
	__u32 device = label(skb, tag);
	return device ? bpf_redirect(device, 0) : TC_ACT_SHOT;
}

// address_of finds an address among those of an uplink.
static __noinline struct address *address_of(__u32 uplink, __u32 addr)
{
	struct addresses *all = bpf_map_lookup_elem(&outside, &uplink);

	if (!all)
		return 0;
	for (__u32 i = 0; i < ADDRESSES && i < all->count; i++)
		if (all->list[i].addr == addr)
			return &all->list[i];
	return 0;
}

// port_is_ours reports whether an outside port is mapped or resting. Where that is not known, Go must say.
static __always_inline int port_is_ours(const struct address *a, __u8 proto, __u16 port)
{
	__u32 n = proto == IPPROTO_TCP ? a->tcp : a->udp;

	if (n == NO_PORTS || n == WHOLE_ADDRESS)
		return 1;
	struct ports *p = bpf_map_lookup_elem(&port_words, &n);
	return p && *(volatile __u32 *)&p->word[port] & PORT_KIND;
}

// pair_is_ours reports whether there is a session of a protocol without ports, or of an ICMP query or a PPTP call with this
// identifier. It is global so that the verifier reads it once, not once for each way to it.
__noinline int pair_is_ours(__u32 uplink, __u32 addr, __u32 remote, __u8 proto, __u16 identifier)
{
	struct key k = {(__u64)addr << 32 | remote, (__u64)identifier << 16 | (__u64)proto << 8 | uplink};
	__u32 n = 0;

	return find(&index_in, k, INBOUND, &n) != 0;
}

// has_ports reports whether sessions of a protocol have a port, or identifier, of their own.
static __always_inline int has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_ICMP;
}

// quote_is_ours judges an ICMP error by the packet that it quotes at an offset (RFC 5508 REQ-4).
static __always_inline int quote_is_ours(struct __sk_buff *skb, __u32 at, __u32 uplink)
{
	struct iphdr ip;
	__u8 l4[8];

	if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return 0;
	__u32 addr = bpf_ntohl(ip.saddr);
	struct address *a = address_of(uplink, addr);
	if (!a)
		return 0;
	if (!has_ports(ip.protocol))
		return pair_is_ours(uplink, addr, bpf_ntohl(ip.daddr), ip.protocol, 0);
	if (bpf_skb_load_bytes(skb, at + ip.ihl * 4, l4, sizeof(l4)))
		return 0;
	if (ip.protocol == IPPROTO_TCP || ip.protocol == IPPROTO_UDP)
		return port_is_ours(a, ip.protocol, bpf_ntohs(*(__be16 *)l4));
	if (ip.protocol != IPPROTO_ICMP || (l4[0] != ICMP_ECHO && l4[0] != ICMP_TIMESTAMP))
		return 0;
	return pair_is_ours(uplink, addr, bpf_ntohl(ip.daddr), IPPROTO_ICMP, bpf_ntohs(*(__be16 *)(l4 + 4)));
}

static __always_inline int icmp_is_ours(struct __sk_buff *skb, const struct iphdr *ip, __u32 at, const __u8 *l4, __u32 uplink)
{
	switch (l4[0]) {
	case ICMP_ECHO_REPLY:
	case ICMP_TIMESTAMP_REPLY:
		return pair_is_ours(uplink, bpf_ntohl(ip->daddr), bpf_ntohl(ip->saddr), IPPROTO_ICMP, bpf_ntohs(*(__be16 *)(l4 + 4)));
	case ICMP_UNREACHABLE:
	case ICMP_TIME_EXCEEDED:
	case ICMP_PARAMETER:
		return quote_is_ours(skb, at + 8, uplink);
	}
	return 0;
}

// told reports whether Go has heard of a client within this tick, and notes that it has now.
static __always_inline int told(const struct client *c)
{
	__u32 now = bpf_ktime_get_coarse_ns() >> 26;
	__u32 *last = bpf_map_lookup_elem(&clients, c);

	if (last && *last == now)
		return 1;
	bpf_map_update_elem(&clients, c, &now, BPF_ANY);
	return 0;
}

// copy tells Go of a request to a service of the host, which has the packet itself.
static __always_inline int copy(struct __sk_buff *skb, __u8 tag)
{
	__u8 header[ETH_HLEN];

	if (bpf_skb_load_bytes(skb, 0, header, sizeof(header)))
		return TC_ACT_UNSPEC;
	__u32 device = label(skb, tag);
	if (device)
		bpf_clone_redirect(skb, device, 0);
	return bpf_skb_store_bytes(skb, 0, header, sizeof(header), 0) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
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
static __always_inline int call_is_ours(struct __sk_buff *skb, const struct iphdr *ip, __u32 at, __u32 uplink)
{
	__u8 l4[8];

	if (ip->frag_off & bpf_htons(0x3fff))
		return 1;
	if (bpf_skb_load_bytes(skb, at, l4, sizeof(l4)) || (l4[1] & GRE_VERSION) != GRE_ENHANCED)
		return 0;
	return pair_is_ours(uplink, bpf_ntohl(ip->daddr), bpf_ntohl(ip->saddr), IPPROTO_GRE, bpf_ntohs(*(__be16 *)(l4 + GRE_CALL)));
}

// home finds an outside address of the uplink that received a packet, or else of another, whose mappings it may then be for:
// Go drops such packets, and the host would answer them.
static __always_inline struct address *home(__u32 *uplink, __u32 addr)
{
	struct address *a = address_of(*uplink, addr);
	__u32 *n = a ? 0 : bpf_map_lookup_elem(&own, &addr);

	if (!n)
		return a;
	*uplink = *n;
	return address_of(*uplink, addr);
}

// The ways of a received packet that is no hit.
enum whose { OTHERS, OURS, SERVICE };

// judge tells whose a received packet is (DESIGN of the gateway: one predicate for both datapaths).
static __noinline enum whose judge(struct __sk_buff *skb, __u32 l2, __u32 uplink)
{
	struct iphdr ip;
	__u8 l4[8];

	if (bpf_skb_load_bytes(skb, l2, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
		return OTHERS;
	struct address *a = home(&uplink, bpf_ntohl(ip.daddr));
	if (!a)
		return OTHERS;
	if (a->tcp == WHOLE_ADDRESS)
		return OURS;
	if (!has_ports(ip.protocol) && pair_is_ours(uplink, a->addr, bpf_ntohl(ip.saddr), ip.protocol, 0))
		return OURS;
	if (ip.protocol == IPPROTO_GRE)
		return call_is_ours(skb, &ip, l2 + ip.ihl * 4, uplink) ? OURS : OTHERS;
	if (!has_ports(ip.protocol))
		return OTHERS;
	if (ip.frag_off & bpf_htons(0x3fff))
		return OURS;
	__u32 at = l2 + ip.ihl * 4;
	if (bpf_skb_load_bytes(skb, at, l4, sizeof(l4)))
		return OTHERS;
	if (ip.protocol == IPPROTO_ICMP)
		return icmp_is_ours(skb, &ip, at, l4, uplink) ? OURS : OTHERS;
	__u16 port = bpf_ntohs(*(__be16 *)(l4 + 2));
	if (port_is_ours(a, ip.protocol, port))
		return OURS;
	if (ip.protocol != IPPROTO_UDP || !is_service(port))
		return OTHERS;
	struct client c = {bpf_ntohl(ip.saddr), a->addr, bpf_ntohs(*(__be16 *)l4), port, uplink};
	return told(&c) ? OTHERS : SERVICE;
}
