//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only
// The benchmark's source and sink of packets, and the limit that a gateway can reach: forwarding without translation.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2  // not to need the C library's headers
#define DISCARD 9  // port
#define PORTS 32768  // source ports of one source address
#define FIRST_PORT 1024

// frame is a packet of the flood: 60 bytes of Ethernet, which is the least.
struct frame {
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__u8 payload[18];
} __attribute__((packed));

#define IP_LEN (sizeof(struct frame) - sizeof(struct ethhdr))
#define UDP_LEN (IP_LEN - sizeof(struct iphdr))

struct mac {
	__u8 b[ETH_ALEN];
};

// What the generator sends, set when it is loaded.
const volatile __u32 endpoints = 1;  // inside addresses and ports
const volatile __u32 remotes = 1;    // servers that each endpoint sends to
const volatile __u32 source;         // first address of the endpoints, host order
const volatile __u32 server;         // first of the servers, host order
const volatile struct mac port_mac;  // of the gateway's LAN port
const volatile __u32 verdict = XDP_PASS;
const volatile __u64 interval;       // ns between two packets, 0 for none

// How far it is. Only one processor runs it at a time; Go changes limit.
volatile __u64 number;  // of the next packet
volatile __u64 limit;   // from this number on, frames are dropped
__u64 due;              // time of the next packet

// paced says whether the next packet's time has come.
static __always_inline int paced(void)
{
	if (!interval)
		return 1;
	__u64 now = bpf_ktime_get_ns();
	if (now < due)
		return 0;
	due = now + interval;
	return 1;
}

static __always_inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline __u32 halves(__u32 v)
{
	return (v >> 16) + (v & 0xffff);
}

// fill writes every header field, because frames come back as the gateway left them.
static __always_inline void fill(struct frame *f, __u32 from, __u16 port, __u32 to)
{
	__u32 addresses = halves(from) + halves(to);
	__u32 ip_sum = 0x4500 + IP_LEN + 0x4000 + (64 << 8 | IPPROTO_UDP) + addresses;
	__u32 udp_sum = addresses + IPPROTO_UDP + 2 * UDP_LEN + port + DISCARD;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		f->eth.h_dest[i] = port_mac.b[i];
		f->eth.h_source[i] = 2;
	}
	f->eth.h_proto = bpf_htons(ETH_P_IP);
	f->ip.version = 4, f->ip.ihl = 5, f->ip.tos = 0;
	f->ip.tot_len = bpf_htons(IP_LEN);
	f->ip.id = 0, f->ip.frag_off = bpf_htons(0x4000);
	f->ip.ttl = 64, f->ip.protocol = IPPROTO_UDP;
	f->ip.saddr = bpf_htonl(from), f->ip.daddr = bpf_htonl(to);
	f->ip.check = bpf_htons(fold(ip_sum));
	f->udp.source = bpf_htons(port), f->udp.dest = bpf_htons(DISCARD);
	f->udp.len = bpf_htons(UDP_LEN);
	f->udp.check = bpf_htons(fold(udp_sum));
}

// generate makes packets of all endpoints in turn, then of all again to the next server. Run in live-frame mode it hands them
// to the network stack as if the LAN port had received them, at a small part of the cost of sending them.
SEC("xdp") int generate(struct xdp_md *ctx)
{
	struct frame *f = (void *)(long)ctx->data;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end || number >= limit || !paced())
		return XDP_DROP;
	__u64 n = number;
	__u32 endpoint = n % endpoints, remote = n / endpoints % remotes;
	number = n + 1;
	fill(f, source + endpoint / PORTS, FIRST_PORT + endpoint % PORTS, server + remote);
	return verdict;
}

// header returns the IPv4 header of a packet, and what is behind it, or 0.
static __always_inline struct iphdr *header(struct __sk_buff *skb)
{
	struct iphdr *ip = (void *)(long)skb->data + sizeof(struct ethhdr);

	if (skb->protocol != bpf_htons(ETH_P_IP) || (void *)ip + sizeof(*ip) + sizeof(struct udphdr) > (void *)(long)skb->data_end)
		return 0;
	return ip;
}

// discard drops the flood, and only that, where the provider receives it.
SEC("tc") int discard(struct __sk_buff *skb)
{
	struct iphdr *ip = header(skb);

	if (!ip || ip->protocol != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	struct udphdr *udp = (void *)(ip + 1);
	return udp->dest == bpf_htons(DISCARD) ? TC_ACT_SHOT : TC_ACT_UNSPEC;
}

struct way {
	__u32 ifindex;
	__be32 next_hop;
};

// What the redirecting gateway knows, set when it is loaded.
const volatile struct way uplink0, uplink1;
const volatile __u32 lan_ifindex;
const volatile __u32 lan, lan_mask;  // the LAN's prefix, host order

static __always_inline int inside(__be32 addr)
{
	return (bpf_ntohl(addr) & lan_mask) == lan;
}

static __always_inline int send(__u32 ifindex, __be32 next_hop)
{
	struct bpf_redir_neigh next = {.nh_family = AF_INET, .ipv4_nh = next_hop};

	return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
}

// redirect_out sends what a LAN host sent on by an uplink, odd source ports by the second.
SEC("tc") int redirect_out(struct __sk_buff *skb)
{
	struct iphdr *ip = header(skb);

	if (!ip || inside(ip->daddr))
		return TC_ACT_UNSPEC;
	__be16 port = *(__be16 *)(ip + 1);
	if (port & bpf_htons(1))
		return send(uplink1.ifindex, uplink1.next_hop);
	return send(uplink0.ifindex, uplink0.next_hop);
}

// redirect_in sends what came in by an uplink for a LAN host to it.
SEC("tc") int redirect_in(struct __sk_buff *skb)
{
	struct iphdr *ip = header(skb);

	if (!ip || !inside(ip->daddr))
		return TC_ACT_UNSPEC;
	return send(lan_ifindex, ip->daddr);
}

char _license[] SEC("license") = "GPL";
