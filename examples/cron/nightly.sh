#!/usr/bin/env bash
# A night's work, for cron or a systemd timer:
#
#   0 5 * * 1-6  /opt/shop/nightly.sh /opt/shop           >> /var/log/trendcast.log 2>&1
#   0 3 * * 0    /opt/shop/nightly.sh /opt/shop --train   >> /var/log/trendcast.log 2>&1
#
# A run that is still going makes the next one stop at once and say so; a failure leaves yesterday's forecasts in force,
# and cron mails what is printed last.
set -euo pipefail
cd "${1:?the folder with dbt_project.yml}"

# cron has a short PATH and no language.
export PATH="${TRENDCAST_BIN_DIR:-/opt/trendcast/bin}:$PATH" NO_COLOR=1

if [ "${2:-}" = --train ]; then
    # Once more from what was finished, if it fails; not if it was used wrongly (exit code 2).
    trendcast run || { [ $? -eq 1 ] && trendcast run --resume; }
else
    trendcast run --no-train
fi
trendcast publish
