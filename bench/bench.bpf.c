//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only
// The benchmark's source and sink of packets, and the limit that a gateway can reach: forwarding without translation.
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2  // not to need the C library's headers
#define AF_INET6 10
#define DISCARD 9  // port
#define PORTS 32768  // source ports of one source address
#define FIRST_PORT 1024

const volatile __u32 ipv6;  // the family of all packets; set when loaded, so that the verifier leaves out the other's code

#define WORDS (ipv6 ? 4 : 1)  // of an address
#define IP_HEADER (ipv6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr))

// address is as headers have it, of IPv4 in the first word.
struct address {
	__be32 word[4];
};

struct prefix {
	struct address address, mask;
};

// datagram is what each packet of the flood carries: with IPv4 it makes 60 bytes of Ethernet, which is the least.
struct datagram {
	struct udphdr udp;
	__u8 payload[18];
};

#define UDP_LEN sizeof(struct datagram)

struct mac {
	__u8 b[ETH_ALEN];
};

// What the generator sends, set when it is loaded.
const volatile __u32 endpoints = 1;    // inside addresses and ports
const volatile __u32 remotes = 1;      // servers that each endpoint sends to
const volatile struct address source;  // the first of the endpoints
const volatile struct address server;  // the first of the servers
const volatile struct mac port_mac;    // of the gateway's LAN port
const volatile __u32 verdict = XDP_PASS;
const volatile __u64 interval;  // ns between two packets, 0 for none

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

// put writes the n-th address from first on, and returns what it adds to checksums.
static __always_inline __u32 put(__be32 *to, const volatile struct address *first, __u32 n, int words)
{
	__u32 sum = 0;

#pragma unroll
	for (int i = 0; i < words; i++) {
		__u32 word = bpf_ntohl(first->word[i]);
		if (i == words - 1)
			word += n;
		to[i] = bpf_htonl(word);
		sum += halves(word);
	}
	return sum;
}

// fill4 writes the header of a packet from the from-th address to the to-th server, and returns what the addresses add to
// checksums.
static __always_inline __u32 fill4(struct iphdr *ip, __u32 from, __u32 to)
{
	__u32 addresses = put(&ip->saddr, &source, from, 1) + put(&ip->daddr, &server, to, 1);

	ip->version = 4, ip->ihl = 5, ip->tos = 0;
	ip->tot_len = bpf_htons(sizeof(*ip) + UDP_LEN);
	ip->id = 0, ip->frag_off = bpf_htons(0x4000);
	ip->ttl = 64, ip->protocol = IPPROTO_UDP;
	ip->check = bpf_htons(fold(0x4500 + sizeof(*ip) + UDP_LEN + 0x4000 + (64 << 8 | IPPROTO_UDP) + addresses));
	return addresses;
}

static __always_inline __u32 fill6(struct ipv6hdr *ip, __u32 from, __u32 to)
{
	*(__be32 *)ip = bpf_htonl(6 << 28); // version, traffic class, flow label
	ip->payload_len = bpf_htons(UDP_LEN);
	ip->nexthdr = IPPROTO_UDP, ip->hop_limit = 64;
	return put(ip->saddr.s6_addr32, &source, from, 4) + put(ip->daddr.s6_addr32, &server, to, 4);
}

// fill writes every header field, because frames come back as the gateway left them.
static __always_inline void fill(struct ethhdr *eth, __u32 from, __u16 port, __u32 to)
{
	void *ip = eth + 1;
	struct udphdr *udp = ip + IP_HEADER;

#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		eth->h_dest[i] = port_mac.b[i];
		eth->h_source[i] = 2;
	}
	eth->h_proto = ipv6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
	__u32 addresses = ipv6 ? fill6(ip, from, to) : fill4(ip, from, to);
	__u16 check = fold(addresses + IPPROTO_UDP + 2 * UDP_LEN + port + DISCARD);
	udp->source = bpf_htons(port), udp->dest = bpf_htons(DISCARD);
	udp->len = bpf_htons(UDP_LEN);
	udp->check = bpf_htons(check ? check : 0xffff); // RFC 768: 0 is none
}

// generate makes packets of all endpoints in turn, then of all again to the next server. Run in live-frame mode it hands them
// to the network stack as if the LAN port had received them, at a small part of the cost of sending them.
SEC("xdp") int generate(struct xdp_md *ctx)
{
	struct ethhdr *eth = (void *)(long)ctx->data;

	if ((void *)(eth + 1) + IP_HEADER + UDP_LEN > (void *)(long)ctx->data_end || number >= limit || !paced())
		return XDP_DROP;
	__u64 n = number;
	__u32 endpoint = n % endpoints, remote = n / endpoints % remotes;
	number = n + 1;
	fill(eth, endpoint / PORTS, FIRST_PORT + endpoint % PORTS, remote);
	return verdict;
}

// header returns the IP header of a packet with the ports behind it, or 0.
static __always_inline void *header(struct __sk_buff *skb)
{
	void *ip = (void *)(long)skb->data + sizeof(struct ethhdr);

	if (skb->protocol != (ipv6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP)) ||
	    ip + IP_HEADER + sizeof(struct udphdr) > (void *)(long)skb->data_end)
		return 0;
	return ip;
}

static __always_inline __be32 *source_of(void *ip)
{
	return ipv6 ? ((struct ipv6hdr *)ip)->saddr.s6_addr32 : &((struct iphdr *)ip)->saddr;
}

static __always_inline __be32 *destination_of(void *ip)
{
	return ipv6 ? ((struct ipv6hdr *)ip)->daddr.s6_addr32 : &((struct iphdr *)ip)->daddr;
}

static __always_inline __u8 protocol_of(void *ip)
{
	return ipv6 ? ((struct ipv6hdr *)ip)->nexthdr : ((struct iphdr *)ip)->protocol;
}

static __always_inline int within(const __be32 *addr, const volatile struct prefix *p)
{
#pragma unroll
	for (int i = 0; i < 4; i++)
		if (i < WORDS && (addr[i] & p->mask.word[i]) != p->address.word[i])
			return 0;
	return 1;
}

const volatile struct prefix expected;  // where the flood comes from when the gateway has done its work; set when loaded
volatile __u64 unexpected;              // packets of the flood from elsewhere

// discard drops the flood, and only that, where the provider receives it.
SEC("tc") int discard(struct __sk_buff *skb)
{
	void *ip = header(skb);

	if (!ip || protocol_of(ip) != IPPROTO_UDP)
		return TC_ACT_UNSPEC;
	struct udphdr *udp = ip + IP_HEADER;
	if (udp->dest != bpf_htons(DISCARD))
		return TC_ACT_UNSPEC;
	if (!within(source_of(ip), &expected))
		__sync_fetch_and_add(&unexpected, 1);
	return TC_ACT_SHOT;
}

struct way {
	__u32 ifindex;
	struct address next_hop;
};

// What the redirecting gateway knows, set when it is loaded.
const volatile struct way uplink0, uplink1;
const volatile __u32 lan_ifindex;
const volatile struct prefix lan, servers;

static __always_inline int send(__u32 ifindex, const volatile __be32 *next_hop)
{
	struct bpf_redir_neigh next = {.nh_family = ipv6 ? AF_INET6 : AF_INET};

#pragma unroll
	for (int i = 0; i < 4; i++)
		if (i < WORDS)
			next.ipv6_nh[i] = next_hop[i]; // whose first word is ipv4_nh
	return bpf_redirect_neigh(ifindex, &next, sizeof(next), 0);
}

// redirect_out sends what a LAN host sent to a server on by an uplink, odd source ports by the second.
SEC("tc") int redirect_out(struct __sk_buff *skb)
{
	void *ip = header(skb);

	if (!ip || !within(destination_of(ip), &servers))
		return TC_ACT_UNSPEC;
	__be16 port = *(__be16 *)(ip + IP_HEADER);
	if (port & bpf_htons(1))
		return send(uplink1.ifindex, uplink1.next_hop.word);
	return send(uplink0.ifindex, uplink0.next_hop.word);
}

// redirect_in sends what came in by an uplink for a LAN host to it.
SEC("tc") int redirect_in(struct __sk_buff *skb)
{
	void *ip = header(skb);

	if (!ip || !within(destination_of(ip), &lan))
		return TC_ACT_UNSPEC;
	return send(lan_ifindex, destination_of(ip));
}

char _license[] SEC("license") = "GPL";
