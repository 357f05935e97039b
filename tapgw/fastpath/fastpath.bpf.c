//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only
// The fast path: a cache of decisions that Go has made. A packet of a known session is rewritten, counted and redirected;
// whatever is unknown or unusual is left alone and goes on to Go.
#include "rewrite.h"
#include "table.h"

#define HOST 0     // __sk_buff.pkt_type of what is sent to us
#define AF_INET 2  // not to need the C library's headers

struct mac {
	__u8 b[ETH_ALEN];
};

const volatile __u32 tap_ifindex;
const volatile struct mac tap_mac;
const volatile struct mac gateway_mac;
const volatile __u32 tick_offset;
const volatile __u32 uplink_id;  // of the uplink that a program is attached to

// advance moves a sequence number forward, or anywhere at the start of a connection.
static __always_inline void advance(__u32 *to, __u32 seq, int first)
{
	__u32 old = *(volatile __u32 *)to;

	if ((first && old != seq) || (__s32)(seq - old) > 0)
		*(volatile __u32 *)to = seq;
}

// track is what nat/tcp.go notes of a segment that is neither SYN nor RST.
static __always_inline void track(struct counters *c, const struct packet *p)
{
	__u64 shown = *(volatile __u64 *)&c->bytes, seen = 0;
	int first = !(shown & ACK_SEEN);

	advance(&c->seq_end, p->seq_end, first);
	if (p->flags & TCP_ACK) {
		advance(&c->ack, p->ack, first);
		seen |= ACK_SEEN;
	}
	if (p->flags & TCP_FIN)
		seen |= FIN_SEEN;
	if ((shown & seen) != seen)
		__sync_fetch_and_or(&c->bytes, seen);
}

// count notes a packet, or the segments of a super-packet. Go counts in the same words, so all is atomic.
static __always_inline void count(struct counters *c, const struct packet *p, __u32 gso_size)
{
	__u32 now = (__u32)(bpf_ktime_get_coarse_ns() >> 26) + tick_offset;

	__sync_fetch_and_add(&c->bytes, p->len);
	__sync_fetch_and_add(&c->packets, gso_size ? (p->len + gso_size - 1) / gso_size : 1);
	if (p->proto == IPPROTO_TCP)
		track(c, p);
	if (*(volatile __u32 *)&c->seen != now)
		*(volatile __u32 *)&c->seen = now;
}

// current returns the uplink of a session when both are as they were when the session was opened.
static __always_inline struct uplink *current(const struct identity *id)
{
	__u32 state = id->own & STATE_MASK, n = id->ports & 0xff;
	struct uplink *u = bpf_map_lookup_elem(&uplinks, &n);

	if (!u || *(volatile __u32 *)&u->generation != (__u32)id->outside)
		return 0;
	return state >= STATE_FIRST && state <= STATE_LAST ? u : 0;
}

static __always_inline int send(const struct uplink *u, const struct packet *p)
{
	if (u->flags & UPLINK_HEADERLESS)
		return bpf_redirect(u->ifindex, 0);
	struct bpf_redir_neigh next = {.nh_family = AF_INET, .ipv4_nh = u->gateway ? u->gateway : bpf_htonl(p->dst)};
	return bpf_redirect_neigh(u->ifindex, &next, sizeof(next), 0);
}

SEC("tc") int tap_egress(struct __sk_buff *skb)
{
	struct packet p;
	__u32 n = 0, gso = skb->gso_size;

	if (parse(skb, ETH_HLEN, &p))
		return TC_ACT_UNSPEC;
	struct key k = {
		(__u64)p.src << 32 | p.dst,
		(__u64)p.sport << 48 | (__u64)p.dport << 32 | (__u64)p.proto << 8,
	};
	struct identity *id = find(&index_out, k, OUTBOUND, &n);
	if (!id)
		return TC_ACT_UNSPEC;
	struct uplink *u = current(id);
	struct counters *c = bpf_map_lookup_elem(&counts_out, &n);
	if (!c || !u || !(u->flags & UPLINK_USABLE) || (gso ? p.headers + gso : p.len) > u->mtu)
		return TC_ACT_UNSPEC;
	struct edit e = {p.src, id->outside >> 32, p.sport, id->ports >> 16};
	int done = rewrite(skb, ETH_HLEN, &p, e, OUTBOUND);
	if (done != TC_ACT_OK)
		return done;
	count(c, &p, gso);
	return send(u, &p);
}

// deliver gives a packet with an Ethernet header to the host as if the imaginary router behind the TAP had sent it.
static __always_inline int deliver(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return TC_ACT_SHOT;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++) {
		eth->h_dest[i] = tap_mac.b[i];
		eth->h_source[i] = gateway_mac.b[i];
	}
	eth->h_proto = bpf_htons(ETH_P_IP);
	return bpf_redirect(tap_ifindex, BPF_F_INGRESS);
}

// reply handles a packet that came in by the uplink. TC_ACT_OK when it is one of a session and was rewritten.
static __always_inline int reply(struct __sk_buff *skb, __u32 l2)
{
	struct packet p;
	__u32 n = 0, gso = skb->gso_size;

	if (skb->pkt_type != HOST || parse(skb, l2, &p))
		return TC_ACT_UNSPEC;
	struct key k = {
		(__u64)p.dst << 32 | p.src,
		(__u64)p.sport << 32 | (__u64)p.dport << 16 | (__u64)p.proto << 8 | uplink_id,
	};
	struct identity *id = find(&index_in, k, INBOUND, &n);
	if (!id || !current(id))
		return TC_ACT_UNSPEC;
	struct counters *c = bpf_map_lookup_elem(&counts_in, &n);
	if (!c)
		return TC_ACT_UNSPEC;
	struct edit e = {p.dst, id->addrs >> 32, p.dport, id->ports >> 48};
	int done = rewrite(skb, l2, &p, e, INBOUND);
	if (done == TC_ACT_OK)
		count(c, &p, gso);
	return done;
}

SEC("tc") int uplink_ingress(struct __sk_buff *skb)
{
	int done = reply(skb, ETH_HLEN);

	return done == TC_ACT_OK ? deliver(skb) : done;
}

// uplink_ingress_headerless is for PPP, WWAN and TUN, whose packets get an Ethernet header for the TAP.
SEC("tc") int uplink_ingress_headerless(struct __sk_buff *skb)
{
	int done = reply(skb, 0);

	if (done != TC_ACT_OK)
		return done;
	return bpf_skb_change_head(skb, ETH_HLEN, 0) ? TC_ACT_SHOT : deliver(skb);
}

char _license[] SEC("license") = "GPL";
