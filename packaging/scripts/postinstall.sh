#!/bin/sh
# After installing and upgrading, by dpkg and rpm alike. A new gateway is not started: it takes over the default route.
set -e
systemd-sysusers tapgw.conf
test -d /run/systemd/system || exit 0
systemctl daemon-reload
systemctl try-restart tapgw.service
if systemctl --quiet is-active NetworkManager.service; then
	systemctl reload NetworkManager.service
fi
