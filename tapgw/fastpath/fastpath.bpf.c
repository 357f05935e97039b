//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only
// The fast path: a cache of decisions that Go has made. A packet of a known session is rewritten, counted and redirected;
// whatever is unknown or unusual goes to Go. Both families share the code; what is IPv6's has functions of its own that IPv4's
// way leaves aside, also for the sake of the stack.
#include "answer.h"
#include "count.h"
#include "forward.h"
#include "judge.h"
#include "lan.h"
#include "rewrite.h"
#include "table.h"
#include "upcall.h"

#define HOST 0                 // __sk_buff.pkt_type of what is sent to us
#define GIVEN_BACK 0x74617067  // mark of a packet without Ethernet header that comes back from Go

const volatile __u32 uplink_id;  // of the uplink that a program is attached to

// is_ipv6 reports whether a packet is of the second family, and that ours to carry.
static __always_inline int is_ipv6(struct __sk_buff *skb)
{
	return buckets6 && skb->protocol == bpf_htons(ETH_P_IPV6);
}

// begins reports whether a packet begins a connection, or accepts one: Go fits the segment size that it announces.
static __always_inline int begins(struct __sk_buff *skb, const struct head *h)
{
	__u8 flags;

	return h->proto == IPPROTO_TCP && !h->cut && !bpf_skb_load_bytes(skb, h->at + 13, &flags, sizeof(flags)) && flags & TCP_SYN;
}

// by_its_uplink is leave_as_it_is of any family.
static __always_inline int by_its_uplink(enum family f, struct __sk_buff *skb)
{
	struct head h;
	__u32 mtu = 0;

	if (skb->protocol != ethertype(f) || read_head(f, skb, ETH_HLEN, &h) || (f == V6 && h.cut))
		return TC_ACT_UNSPEC;
	__u32 *n = bpf_map_lookup_elem(&own, &h.src);
	struct uplink *u = n ? uplink_of(f, *n & (UPLINKS - 1)) : 0;
	if (!u || !(u->flags & UPLINK_READY) || begins(skb, &h) || bpf_check_mtu(skb, u->ifindex, &mtu, 0, BPF_MTU_CHK_SEGS))
		return TC_ACT_UNSPEC;
	return u->flags & UPLINK_HEADERLESS ? bpf_redirect(u->ifindex, 0) : send(f, u->ifindex, u->gateway, h.dst);
}

// leave_as_it_is and leave_as_it_is6 send what carries an uplink's own address by that uplink: replies of the host's services
// and port forwards.
static __noinline int leave_as_it_is(struct __sk_buff *skb)
{
	return by_its_uplink(V4, skb);
}

static __noinline int leave_as_it_is6(struct __sk_buff *skb)
{
	return by_its_uplink(V6, skb);
}

// has_peer reports whether a socket is connected.
static __always_inline int has_peer(enum family f, struct bpf_sock *sk)
{
	return f == V4 ? sk->dst_ip4 : sk->dst_ip6[0] | sk->dst_ip6[1] | sk->dst_ip6[2] | sk->dst_ip6[3];
}

// is_bound reports whether a packet comes from a socket that replies must reach by the device: one that is bound to it and takes
// them from nowhere else, or one without a peer, as programs that have such (wireguard-go) answer by the device of the last one.
static __always_inline int is_bound(enum family f, struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;

	return sk && (sk->bound_dev_if == skb->ifindex || (skb->protocol == ethertype(f) && !has_peer(f, sk)));
}

// tap_miss leaves to Go what is neither a hit nor leaves as it is, and tells of bound sockets by the last bit of the
// destination address.
static __always_inline int tap_miss(enum family f, struct __sk_buff *skb)
{
	int done = f == V4 ? leave_as_it_is(skb) : leave_as_it_is6(skb);
	__u8 last = gateway_mac.b[ETH_ALEN - 1] ^ 1;

	if (done == TC_ACT_UNSPEC && is_bound(f, skb))
		bpf_skb_store_bytes(skb, ETH_ALEN - 1, &last, sizeof(last), 0);
	return done;
}

static __always_inline int tap_hit(enum family f, struct __sk_buff *skb)
{
	struct packet p;
	__u32 n = 0;

	if (parse(f, skb, ETH_HLEN, &p, OUTBOUND))
		return NO_HIT;
	struct identity *id = find(f, outbound_key(&p), OUTBOUND, &n);
	if (!id || (HOP(id) != HOP_DEVICE && is_bound(f, skb)))
		return NO_HIT;
	return forward(f, skb, &p, id, n, 0);
}

static __noinline int tap_hit6(struct __sk_buff *skb)
{
	return tap_hit(V6, skb);
}

SEC("tc") int tap_egress(struct __sk_buff *skb)
{
	int done;

	if (is_ipv6(skb)) {
		done = tap_hit6(skb);
		return done == NO_HIT ? tap_miss(V6, skb) : done;
	}
	done = tap_hit(V4, skb);
	return done == NO_HIT ? tap_miss(V4, skb) : done;
}

// lan_ingress takes packets of sessions from the LAN past the host's own forwarding, which gets whatever is to expire here.
SEC("tc") int lan_ingress(struct __sk_buff *skb)
{
	int done;

	if (skb->pkt_type != HOST)
		return TC_ACT_UNSPEC;
	if (is_ipv6(skb)) {
		done = lan_hit6(skb);
		return done == NO_HIT ? lan_miss6(skb) : done;
	}
	done = lan_hit(V4, skb);
	return done == NO_HIT ? lan_miss(skb) : done;
}

// deliver gives a packet with an Ethernet header to the host as if the imaginary router behind the TAP had sent it.
static __always_inline int deliver(enum family f, struct __sk_buff *skb, __u32 tap)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end)
		return TC_ACT_SHOT;
	set_mac(eth->h_dest, &tap_mac);
	set_mac(eth->h_source, &gateway_mac);
	eth->h_proto = ethertype(f);
	return bpf_redirect(tap, BPF_F_INGRESS);
}

// is_given_back reports whether a packet comes from Go.
static __always_inline int is_given_back(struct __sk_buff *skb, __u32 l2)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if (l2)
		return (void *)(eth + 1) <= end && is_secret(eth->h_source);
	if (skb->mark != GIVEN_BACK)
		return 0;
	skb->mark = 0;
	return 1;
}

// not_a_hit leaves a received packet to the host, or hands it to Go when it is ours.
static __always_inline int not_a_hit(enum family f, struct __sk_buff *skb, __u32 l2)
{
	if (skb->pkt_type != HOST || skb->protocol != ethertype(f) || skb->vlan_present || is_given_back(skb, l2))
		return TC_ACT_UNSPEC;
	switch (f == V4 ? judge(skb, l2, uplink_id) : judge6(skb, l2, uplink_id)) {
	case OURS:
		return upcall(f, skb, l2, uplink_id);
	case SERVICE:
		return l2 ? copy(f, skb, TAG_COPY | uplink_id) : upcall(f, skb, l2, uplink_id);
	case OTHERS:
		break;
	}
	return TC_ACT_UNSPEC;
}

// received_hit handles a packet of a session that came in by the uplink. What is for the host itself may go on from here, as by
// the TAP it would have to queue once more.
static __always_inline int received_hit(enum family f, struct __sk_buff *skb, __u32 l2)
{
	struct packet p;
	__u32 n = 0, gso = skb->gso_size;

	if (skb->pkt_type != HOST || parse(f, skb, l2, &p, INBOUND))
		return NO_HIT;
	struct key k = {p.dst, p.src, (__u64)p.sport << 32 | (__u64)p.dport << 16 | (__u64)p.proto << 8 | uplink_id};
	struct identity *id = find(f, k, INBOUND, &n);
	struct uplink *u = uplink_of(f, uplink_id);
	struct counters *c = counts(f, INBOUND, n);
	if (!id || !u || !c || !is_current(id, u))
		return NO_HIT;
	if (p.flags & TCP_SYN && !is_plain_answer(f, skb, l2, &p, id, n, u))
		return NO_HIT;
	struct hop *h = hop_of(f, HOP(id));
	if (h && (p.ttl <= 1 || size(&p, gso) > h->mtu))
		h = 0;
	struct edit e = {.addr = p.dst, .port = p.dport, .to_port = id->ports >> 48, .hops = h != 0};
	if (other(f, id, n, INBOUND, &e.to_addr))
		return NO_HIT;
	int done = rewrite(f, skb, l2, &p, e, INBOUND);
	if (done != TC_ACT_OK)
		return done;
	count(c, &p, gso, tick(u->clock));
	if (!h && is_same(u->host, e.to_addr) && HOP(id) != HOP_DEVICE)
		return TC_ACT_OK;
	if (!l2 && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return TC_ACT_SHOT;
	return h ? send(f, h->ifindex, h->gateway, e.to_addr) : deliver(f, skb, u->tap);
}

static __noinline int received_hit6(struct __sk_buff *skb, __u32 l2)
{
	return received_hit(V6, skb, l2);
}

static __always_inline int received(struct __sk_buff *skb, __u32 l2)
{
	int done;

	if (is_ipv6(skb)) {
		done = received_hit6(skb, l2);
		return done == NO_HIT ? not_a_hit(V6, skb, l2) : done;
	}
	done = received_hit(V4, skb, l2);
	return done == NO_HIT ? not_a_hit(V4, skb, l2) : done;
}

SEC("tc") int uplink_ingress(struct __sk_buff *skb)
{
	return received(skb, ETH_HLEN);
}

// uplink_ingress_headerless is for PPP, WWAN and TUN, whose packets get an Ethernet header.
SEC("tc") int uplink_ingress_headerless(struct __sk_buff *skb)
{
	return received(skb, 0);
}

// give_back makes a packet appear as received by the uplink.
static __always_inline int give_back(struct __sk_buff *skb, struct ethhdr *eth, __u32 n)
{
	struct uplink *u = uplink_of(V4, n);  // its device serves both families

	if (!u || !u->ifindex)
		return TC_ACT_UNSPEC;
	if (u->flags & UPLINK_HEADERLESS)
		skb->mark = GIVEN_BACK;
#pragma unroll
	for (int i = 0; i < ETH_ALEN; i++)
		eth->h_dest[i] = u->mac[i];
	return bpf_redirect(u->ifindex, BPF_F_INGRESS);
}

// fits reports whether the host behind a hop can get a packet, or the segments of a super-packet, as it is.
static __always_inline int fits(enum family f, struct __sk_buff *skb, __u32 mtu)
{
	__u32 at = f == V4 ? offsetof(struct iphdr, tot_len) : offsetof(struct ipv6hdr, payload_len);
	__u32 above = f == V4 ? 0 : sizeof(struct ipv6hdr);
	struct packet p;
	__be16 len;

	if (skb->gso_size)
		return !parse(f, skb, ETH_HLEN, &p, INBOUND) && size(&p, skb->gso_size) <= mtu;
	return !bpf_skb_load_bytes(skb, ETH_HLEN + at, &len, sizeof(len)) && above + bpf_ntohs(len) <= mtu;
}

// to_hop is to_lan of any family.
static __always_inline int to_hop(enum family f, struct __sk_buff *skb, __u32 n)
{
	struct hop *h = hop_of(f, n);
	struct uplink *any = uplink_of(f, 0);
	struct head head;
	int fit = h && fits(f, skb, h->mtu);

	if (read_head(f, skb, ETH_HLEN, &head) || !any)
		return TC_ACT_SHOT;
	if (!h || !fit || head.ttl <= 1)
		return deliver(f, skb, any->tap);
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (data + ETH_HLEN + header(f) > end)
		return TC_ACT_SHOT;
	age(f, data + ETH_HLEN);
	return send(f, h->ifindex, h->gateway, head.dst);
}

// to_lan and to_lan6 send a translated packet by the next hop of its session; what is to expire here is the host's.
static __noinline int to_lan(struct __sk_buff *skb, __u32 n)
{
	return to_hop(V4, skb, n);
}

static __noinline int to_lan6(struct __sk_buff *skb, __u32 n)
{
	return to_hop(V6, skb, n);
}

// upcall_ingress takes what Go writes to the upcall device.
SEC("tc") int upcall_ingress(struct __sk_buff *skb)
{
	__u32 need = ETH_HLEN + sizeof(struct ipv6hdr);

	if (bpf_skb_pull_data(skb, skb->len < need ? skb->len : need))
		return TC_ACT_UNSPEC;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = data;

	if ((void *)(eth + 1) > end || !is_secret(eth->h_source))
		return TC_ACT_UNSPEC;
	__u8 tag = eth->h_source[ETH_ALEN - 1], hop = eth->h_dest[ETH_ALEN - 1];
	if (tag < UPLINKS)
		return give_back(skb, eth, tag);
	if (tag != TAG_LAN)
		return TC_ACT_UNSPEC;
	return is_ipv6(skb) ? to_lan6(skb, hop) : to_lan(skb, hop);
}

char _license[] SEC("license") = "GPL";
