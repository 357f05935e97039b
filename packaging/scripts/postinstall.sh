#!/bin/sh
# After installing and upgrading, by dpkg and rpm alike. A new gateway is not started: it takes over the default route.
set -e
systemd-sysusers tapgw.conf
test -d /run/systemd/system || exit 0
systemctl daemon-reload
if systemctl --quiet is-active NetworkManager.service; then # it learns whose the devices are before they come
	systemctl reload NetworkManager.service
fi
if systemctl --quiet is-active systemd-networkd.service; then
	networkctl reload
fi
systemctl try-restart tapgw.service
