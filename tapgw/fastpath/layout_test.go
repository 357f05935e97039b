package fastpath

import (
	"reflect"
	"strings"
	"testing"

	"tapgw/nat"
	"tapgw/uplinks"
)

// TestLayout compares what Go writes into the arrays with what the C compiler made of table.h.
func TestLayout(t *testing.T) {
	for _, c := range [][2]reflect.Type{
		{reflect.TypeFor[uplinkWords](), reflect.TypeFor[fastpathUplink]()},
		{reflect.TypeFor[hopWords](), reflect.TypeFor[fastpathHop]()},
		{reflect.TypeFor[addressWords](), reflect.TypeFor[fastpathAddresses]()},
		{reflect.TypeFor[serviceWords](), reflect.TypeFor[fastpathServices]()},
	} {
		ours, compiled := c[0], c[1]
		if ours.Size() != compiled.Size() {
			t.Errorf("%v has %d bytes, %v %d", ours, ours.Size(), compiled, compiled.Size())
		}
		if ours.Kind() == reflect.Struct {
			sameFields(t, ours, compiled)
		}
	}
	list, compiledList := listOf[addressWords]("list"), listOf[fastpathAddresses]("List")
	sameFields(t, list.Elem(), compiledList.Elem())
	for _, c := range []struct {
		what           string
		ours, compiled int
	}{
		{"addresses", list.Len(), compiledList.Len()}, {"addresses", MaxAddresses, list.Len()},
		{"bytes of ports", nat.PortArrayBytes, int(reflect.TypeFor[fastpathPorts]().Size())},
		{"bytes of counters", nat.SizesFor(1).CountersBytes, int(reflect.TypeFor[fastpathCounters]().Size())},
		{"bytes of a record", nat.SizesFor(1).RecordBytes, int(reflect.TypeFor[fastpathIdentity]().Size())},
		{"bytes of a record's addresses", nat.SizesFor(1).WideBytes, int(reflect.TypeFor[fastpathWide]().Size())},
		{"bytes of a bucket", nat.SizesFor(1).BucketBytes, int(reflect.TypeFor[fastpathBucket]().Size())},
	} {
		if c.ours != c.compiled {
			t.Errorf("%d %s in Go, %d in C", c.ours, c.what, c.compiled)
		}
	}
}

func listOf[T any](field string) reflect.Type {
	f, _ := reflect.TypeFor[T]().FieldByName(field)
	return f.Type
}

// sameFields expects each named field of one type at the same place in the other, and of the same size.
func sameFields(t *testing.T, ours, compiled reflect.Type) {
	t.Helper()
	for i := range ours.NumField() {
		f := ours.Field(i)
		if f.Name == "_" {
			continue
		}
		same, ok := compiled.FieldByNameFunc(func(name string) bool { return strings.ToLower(name) == f.Name })
		if !ok || same.Offset != f.Offset || same.Type.Size() != f.Type.Size() {
			t.Errorf("%v.%s: %d bytes at %d, in C %+v", ours, f.Name, f.Type.Size(), f.Offset, same)
		}
	}
}

// TestArrayLengths: Go indexes the arrays by numbers that the C program knows too.
func TestArrayLengths(t *testing.T) {
	spec, err := loadFastpath()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int{
		fastpathMapUplinks: 2 * uplinks.MaxUplinks, fastpathMapOutside: 2 * uplinks.MaxUplinks, fastpathMapHops: 2 * hopWordsEach,
		fastpathMapUdpServices: 1,
	} {
		if got := int(spec.Maps[name].MaxEntries); got != want {
			t.Errorf("%s has %d elements, want %d", name, got, want)
		}
	}
}
