//! The shell scripts that run inside. They are constants: what differs comes as arguments, never as text of theirs.
//!
//! Only what POSIX has, `/proc`, and `sleep`, so that busybox, dash and bash read them alike.

/// The first process: stays until its deadline (seconds since 1970, `$1`, may be empty). On SIGTERM it asks everybody to
/// end and goes when nobody is left.
///
/// What [`KEEP`] left it writes to its log, where it can be read when the machine is off.
pub(crate) const STAY: &str = r#"
rm -f /tmp/.agentkernel-exit 2>/dev/null
leave() {
  trap '' TERM
  [ -f /tmp/.agentkernel-exit ] && read -r code </tmp/.agentkernel-exit && echo "agentkernel exit $code"
  kill -TERM -1 2>/dev/null
  while :; do
    alone=1
    for p in /proc/[0-9]*; do
      case ${p#/proc/} in 1|$$) ;; *) read -r l 2>/dev/null <$p/stat || continue
        case ${l##*) } in Z*) ;; *) alone=0; break;; esac;; esac
    done
    [ $alone = 1 ] && exit 0
    sleep 0.05 2>/dev/null || sleep 1
  done
}
trap leave TERM
while :; do
  left=3600
  if [ -n "$1" ]; then
    left=$(($1 - $(date +%s)))
    [ $left -gt 0 ] || exit 0
    [ $left -lt 3600 ] || left=3600
  fi
  sleep $left >/dev/null 2>&1 &
  wait $!
done
"#;

/// Runs a command and tells, on stderr between two bytes 0x1e and after the nonce, what no exit code can: that it
/// started, and whether it ended with a code or by a signal. On stdout it tells the end. Then it waits for the end of its
/// stdin: a call whose output is not read within three seconds of its end loses the rest, so it ends when all was read.
///
/// `$1` nonce, `$2` directory or nothing, `$3` 1 for stdin and 2 for a terminal, on which there is one stream and nothing
/// to wait for, `$4` names of variables whose values are in
/// `AGENTKERNEL_ENV_0` and so on, then the command. A shell names the signal that ended its child on its own stderr;
/// busybox and dash do, but not for INT and PIPE.
pub(crate) const RUN: &str = r#"
__ak_n=$1 __ak_d=$2 __ak_i=$3 __ak_e=$4 __ak_k=0
shift 4
exec 3>&1 4>&2
if [ -n "$__ak_d" ]; then
  cd "$__ak_d" 2>/dev/null || {
    [ -d "$__ak_d" ] && __ak_k=closed || __ak_k=absent
    printf '\036%s %s\036' "$__ak_n" $__ak_k >&4
    exit 0
  }
  unset OLDPWD
fi
case $__ak_i in 0) exec 5<&0 </dev/null ;; 1) exec 5<&0 ;; esac
read -r __ak_p 2>/dev/null </proc/$$/stat
__ak_p=${__ak_p##*) }; __ak_p=${__ak_p#* }; __ak_p=${__ak_p#* }; __ak_p=${__ak_p%% *}
__ak_j=$$
for __ak_x in $__ak_e; do
  eval "__ak_v=\$AGENTKERNEL_ENV_$__ak_k"
  unset "AGENTKERNEL_ENV_$__ak_k"
  __ak_k=$((__ak_k + 1))
  case $__ak_x in
    *[.-]*) set -- env "$__ak_x=$__ak_v" "$@" ;;
    *) export "$__ak_x=$__ak_v" ;;
  esac
done
trap : HUP INT QUIT TERM
printf '\036%s run %s %s\036' "$__ak_n" "$__ak_j" "$__ak_p" >&4
__ak_r=$(exec 2>&1; trap : HUP INT QUIT TERM; (exec "$@" >&3 2>&4 3>&- 4>&- 5<&-); echo ":$?")
case $__ak_r in :*) __ak_k=code ;; *) __ak_k=signal ;; esac
[ "$__ak_i" = 2 ] || printf '\036%s end\036' "$__ak_n" >&3
printf '\036%s %s %s\036' "$__ak_n" "$__ak_k" "${__ak_r##*:}" >&4
[ "$__ak_i" = 2 ] || while read -r __ak_k <&5; do :; done
exit "${__ak_r##*:}"
"#;

/// Ends a tree: `$1` is the process of [`RUN`]. Everything below it and in its session is stopped until nothing new
/// appears, and then killed; itself and its child, who tell the end, only if `$2` is 1.
pub(crate) const KILL: &str = r#"
known=" $1 "
all=$2
told=
grew=1
while [ $grew = 1 ]; do
  grew=0
  for d in /proc/[0-9]*; do
    p=${d#/proc/}
    case $known in *" $p "*) continue ;; esac
    read -r l 2>/dev/null <$d/stat || continue
    set -- "$1" ${l##*) }
    hit=0
    case $known in *" $3 "*) hit=1 ;; esac
    [ "$5" = "$1" ] && hit=1
    [ $hit = 1 ] || continue
    known="$known$p "
    grew=1
    if [ "$all" != 1 ] && [ "$3" = "$1" ]; then told="$told $p "; continue; fi
    [ $p = $$ ] || kill -STOP $p 2>/dev/null
  done
done
for p in $known; do
  case $told in *" $p "*) continue ;; esac
  [ $p = $$ ] || [ $p = $1 ] || kill -KILL $p 2>/dev/null
done
[ "$all" != 1 ] || kill -KILL $1 2>/dev/null
exit 0
"#;

/// Keeps how the main command ended, `$1`, for [`STAY`].
pub(crate) const KEEP: &str = r#"echo "$1" >/tmp/.agentkernel-exit 2>/dev/null; exit 0
"#;

/// Sends a signal, `$3`, to a command's process group, `$2`, but not to the shells of [`RUN`], `$1`, around it.
pub(crate) const SIGNAL: &str = r#"
try=0
while [ -d /proc/$1 ]; do
  sent=0
  for d in /proc/[0-9]*; do
    p=${d#/proc/}
    [ $p != $1 ] || continue
    read -r l 2>/dev/null <$d/stat || continue
    set -- "$1" "$2" "$3" ${l##*) }
    [ "$6" = "$2" ] && [ "$5" != "$1" ] || continue
    kill -$3 $p 2>/dev/null && sent=1
  done
  [ $sent = 0 ] || exit 0
  try=$((try + 1))
  [ $try -lt 20 ] || exit 0
  sleep 0.05 2>/dev/null || sleep 1
done
exit 0
"#;
