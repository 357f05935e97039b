package tray

import (
	"context"
	"slices"
	"strings"

	"fyne.io/systray"

	"tapgw/internal/tray/icon"
)

// Sizes of pictures in pixels: twice what most panels show, so that it is sharp on fine screens too, and what menus show.
const (
	panelIcon = 44
	menuIcon  = 22
)

// panel is the icon and the menu. The library has one of them for the whole process.
type panel struct {
	now    view
	items  []*item
	clicks chan *item
	drop   context.CancelFunc // ends who listens to the items
}

// item is an entry that is shown.
type item struct {
	*systray.MenuItem // nil for a separator
	entry             entry
	children          []*item
}

func newPanel() *panel { return &panel{clicks: make(chan *item), drop: func() {}} }

// show makes the panel look like v. What has not changed is not sent.
func (p *panel) show(ctx context.Context, v view) {
	if !slices.Equal(p.now.links, v.links) || p.items == nil {
		systray.SetIcon(straight(icon.Draw(v.links, panelIcon)))
	}
	if p.now.tooltip != v.tooltip {
		systray.SetTooltip(v.tooltip)
	}
	p.now = v
	if p.items != nil && alike(p.items, v.menu) {
		refresh(p.items, v.menu)
		return
	}
	p.drop()
	ctx, p.drop = context.WithCancel(ctx)
	systray.ResetMenu()
	p.items = p.build(ctx, nil, v.menu)
}

// alike reports whether entries differ from what is shown only in what can be changed in an open menu.
func alike(items []*item, entries []entry) bool {
	return slices.EqualFunc(items, entries, func(i *item, e entry) bool {
		return (i.entry.label == "") == (e.label == "") && (i.entry.check == 0) == (e.check == 0) && alike(i.children, e.children)
	})
}

// refresh changes the items to the entries, which are alike.
func refresh(items []*item, entries []entry) {
	for n, i := range items {
		old, e := i.entry, entries[n]
		i.entry = e
		if old.label != e.label {
			i.SetTitle(escape(e.label))
		}
		if !slices.Equal(old.links, e.links) {
			i.SetIcon(icon.Encode(icon.Draw(e.links, menuIcon)))
		}
		i.set(old)
		refresh(i.children, e.children)
	}
}

// set shows whether the item is checked and can be chosen, where that was otherwise.
func (i *item) set(old entry) {
	if i.entry.check != old.check && i.entry.check == checked {
		i.Check()
	} else if i.entry.check != old.check {
		i.Uncheck()
	}
	if now := i.entry.usable(); now != old.usable() && now {
		i.Enable()
	} else if now != old.usable() {
		i.Disable()
	}
}

// usable reports whether an entry can be chosen.
func (e entry) usable() bool { return e.act != action{} || len(e.children) > 0 }

// build adds entries below parent, nil for the menu itself.
func (p *panel) build(ctx context.Context, parent *systray.MenuItem, entries []entry) (items []*item) {
	for _, e := range entries {
		i := &item{entry: e}
		items = append(items, i)
		if e.label == "" {
			addSeparator(parent)
			continue
		}
		i.MenuItem = add(parent, e)
		if len(e.links) > 0 {
			i.SetIcon(icon.Encode(icon.Draw(e.links, menuIcon)))
		}
		if !e.usable() {
			i.Disable()
		}
		i.children = p.build(ctx, i.MenuItem, e.children)
		go p.listen(ctx, i)
	}
	return items
}

func addSeparator(parent *systray.MenuItem) {
	if parent == nil {
		systray.AddSeparator()
		return
	}
	parent.AddSeparator()
}

func add(parent *systray.MenuItem, e entry) *systray.MenuItem {
	label, on := escape(e.label), e.check == checked
	switch {
	case parent == nil && e.check == 0:
		return systray.AddMenuItem(label, "")
	case parent == nil:
		return systray.AddMenuItemCheckbox(label, "", on)
	case e.check == 0:
		return parent.AddSubMenuItem(label, "")
	}
	return parent.AddSubMenuItemCheckbox(label, "", on)
}

// escape keeps underscores from marking the key of an entry.
func escape(label string) string { return strings.ReplaceAll(label, "_", "__") }

// listen passes on that the item was chosen.
func (p *panel) listen(ctx context.Context, i *item) {
	for {
		select {
		case <-ctx.Done():
			return
		case _, there := <-i.ClickedCh:
			if !there {
				return
			}
			select {
			case <-ctx.Done():
				return
			case p.clicks <- i:
			}
		}
	}
}
