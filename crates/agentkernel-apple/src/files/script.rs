//! The scripts behind the calls on files. Constants: names come as arguments or as data, never as text of theirs.
//!
//! Each begins to answer with its nonce and `ok`, or `fail` and what a program said; words of their own begin with `#`.
//! What could be swapped meanwhile is looked at once it is held: a directory by being entered and then asked where that
//! is, a file by its descriptor. Each waits for the end of its stdin before it ends: only then everything has been read.

/// What they have in common: `$n` is the nonce, `$1` and on are what the call has.
macro_rules! script {
    ($($text:literal)+) => {
        concat!(
            r#"LC_ALL=C; export LC_ALL; umask 022
n=$1 t=; shift
fail() { [ -z "$t" ] || rm -f "./$t"; printf '%s fail %s\n' "$n" "$1"; exit 0; }
enter() {
  cd -P "$1" 2>/dev/null && return
  m=$(ls -d "$1/." 2>&1 >/dev/null) && m='Permission denied'
  fail "$m"
}
"#,
            $($text,)+
        )
    };
}

/// Tells what `$1` is.
pub(super) const METADATA: &str = script!(
    r#"
m=$(stat -c '%f %s %u %g %Y' "$1" 2>&1) || fail "$m"
printf '%s ok %s\n' "$n" "$m"
"#
);

/// Makes the directory `$1`, with its parents if `$2` is 1.
pub(super) const MAKE: &str = script!(
    r#"
if [ "$2" = 1 ]; then m=$(mkdir -p "$1" 2>&1); else m=$(mkdir "$1" 2>&1); fi || fail "$m"
printf '%s ok\n' "$n"
"#
);

/// Removes `$2` in the directory `$1`, with all that is below if `$3` is 1.
pub(super) const REMOVE: &str = script!(
    r#"
clear() {
  m=$(find . -maxdepth 1 ! -type d -exec rm -f {} + 2>&1) || fail "$m"
  for e in * .[!.]* ..?*; do
    [ -d "./$e" ] && ! [ -L "./$e" ] || continue
    within "$e"
  done
}
within() {
  cd -P "./$1" 2>/dev/null || fail "$(ls -d "./$1/." 2>&1 >/dev/null)"
  [ "$PWD" = "${here%/}/$1" ] || fail '#link'
  here=$PWD
  m=$(ls -a . 2>&1 >/dev/null) || fail "$m"
  clear
  cd -P ..
  here=${here%/*}; here=${here:-/}
  [ "$PWD" = "$here" ] || fail '#link'
  m=$(rmdir "./$1" 2>&1) || fail "$m"
}
enter "$1"
here=$PWD
if [ -d "./$2" ] && ! [ -L "./$2" ]; then
  if [ "$3" = 1 ]; then within "$2"; else m=$(rmdir "./$2" 2>&1) || fail "$m"; fi
else
  m=$(rm "./$2" 2>&1) || fail "$m"
fi
printf '%s ok\n' "$n"
"#
);

/// Lists the directory `$1`: of each entry its type and name, with a NUL after it; an `e` alone is the end.
pub(super) const LIST: &str = script!(
    r#"
enter "$1"
m=$(ls -a . 2>&1 >/dev/null) || fail "$m"
printf '%s ok %s\n' "$n" $$
for e in * .[!.]* ..?*; do
  if [ -L "./$e" ]; then k=l
  elif [ -f "./$e" ]; then k=f
  elif [ -d "./$e" ]; then k=d
  elif [ -e "./$e" ]; then k=o
  else continue
  fi
  printf '%s%s\0' $k "$e"
done
printf 'e\0'
read -r m
"#
);

/// Gives the content of the file `$1`: process and size, the content, and [`TRAILER`] bytes of how it ended.
pub(super) const READ: &str = script!(
    r#"
[ -e "$1" ] || { m=$(stat -L "$1" 2>&1 >/dev/null) || fail "$m"; }
[ -d "$1" ] && fail '#directory'
[ -f "$1" ] || fail '#irregular'
ok=
give() {
  ok=1
  [ -f /proc/$$/fd/3 ] || fail '#irregular'
  s=$(stat -L -c %s /proc/$$/fd/3 2>&1) || fail "$s"
  printf '%s ok %s %s\n' "$n" $$ "$s"
  cat <&3
  r=$?
  s=$(stat -L -c %s /proc/$$/fd/3 2>/dev/null)
  printf '%s %03d %020d' "$n" $r ${s:-0}
  read -r m
}
give 3<"$1"
[ -n "$ok" ] || fail "$(exec 2>&1; : <"$1")"
"#
);

/// How long the end of [`READ`] is: nonce, code, size.
pub(super) const TRAILER: usize = 16 + 1 + 3 + 1 + 20;

/// Takes files into the directory `$1`, which is made with its parents if `$2` is 1. Lines of stdin say what; `~` begins a
/// name with bytes that are told by number.
///
/// `u` goes to the directory, `c NAME` into one below; `d MODE NAME` makes one, `m MODE` sets the mode of where it is;
/// `f MODE TIME NAME` is a file, with a line that has a length before each part of its content, and 0 at the end;
/// `l NAME TARGET` is a link; `k` keeps the place and `h NAME TARGET` is a hard link to what is there; `e` is the end.
pub(super) const TAKE: &str = script!(
    r#"
if [ "$2" = 1 ]; then m=$(mkdir -p "$1" 2>&1) || fail "$m"; fi
enter "$1"
top=$PWD here=$PWD
printf '%s ok %s\n' "$n" $$
plain() { case $x in '~'*) x=$(printf '%b.' "${x#?}"); x=${x%.} ;; esac; }
put() {
  [ -d "./$x" ] && ! [ -L "./$x" ] && fail '#directory'
  m=$(mv -fT "./$t" "./$x" 2>&1) && t= && return
  # That of busybox looks through a link to a directory.
  if [ -L "./$x" ]; then
    rm -f "./$x"
    m=$(mv -fT "./$t" "./$x" 2>&1) && t= && return
  fi
  case $m in *option*) m=$(mv -f "./$t" "./$x" 2>&1) && t= && return ;; esac
  fail "$m"
}
content() {
  ok=1 size=0
  while :; do
    read -r k || fail '#cut'
    [ "$k" != 0 ] || break
    m=$(dd bs="$k" count=1 iflag=fullblock 2>&1 >&3) || fail "$m"
    size=$((size + k))
  done
  m=$(stat -L -c %s /proc/$$/fd/3 2>&1) || fail "$m"
  [ "$m" = $size ] || fail '#cut'
  if [ "$a" = - ]; then
    a=644
    if [ -f "./$x" ] && ! [ -L "./$x" ]; then a=$(stat -c %a "./$x"); fi
    case $a in ????) a=${a#?} ;; esac
  fi
  m=$(chmod "$a" /proc/$$/fd/3 2>&1) || fail "$m"
  [ "$b" = - ] || touch -d "@$b" /proc/$$/fd/3 2>/dev/null
}
while read -r o a b x; do
  case $o in
    u)
      cd -P "$top" 2>/dev/null && [ "$PWD" = "$top" ] || fail '#link'
      here=$top ;;
    c)
      x=$a; plain
      [ -L "./$x" ] && fail '#link'
      [ -d "./$x" ] || m=$(mkdir "./$x" 2>&1) || fail "$m"
      cd -P "./$x" 2>/dev/null || fail "$(ls -d "./$x/." 2>&1 >/dev/null)"
      [ "$PWD" = "${here%/}/$x" ] || fail '#link'
      here=$PWD ;;
    d)
      x=$b; plain
      [ -L "./$x" ] && fail '#link'
      [ -d "./$x" ] || m=$(mkdir -m "$a" "./$x" 2>&1) || fail "$m" ;;
    m)
      m=$(chmod "$a" . 2>&1) || fail "$m" ;;
    f)
      plain
      [ -d "./$x" ] && ! [ -L "./$x" ] && fail '#directory'
      t=.agentkernel-$n ok=
      set -C; umask 077
      content 3>"./$t"
      umask 022
      [ -n "$ok" ] || { x=$t t=; fail "$(exec 2>&1; : >"./$x")"; }
      set +C
      put ;;
    l)
      x=$b; plain; b=$x; x=$a; plain
      t=.agentkernel-$n
      m=$(ln -s -- "$b" "./$t" 2>&1) || fail "$m"
      put ;;
    k)
      exec 5<. ;;
    h)
      x=$b; plain; b=$x; x=$a; plain
      [ -f "/proc/$$/fd/5/$b" ] && ! [ -L "/proc/$$/fd/5/$b" ] || fail '#target'
      [ "/proc/$$/fd/5/$b" -ef "./$x" ] && continue
      t=.agentkernel-$n
      m=$(ln "/proc/$$/fd/5/$b" "./$t" 2>&1) || fail "$m"
      put ;;
    e)
      printf '%s ok\n' "$n"
      exit 0 ;;
  esac
done
fail '#cut'
"#
);

/// Gives `$2` of the directory `$1` as records: `D MODE TIME`, `F MODE SIZE TIME` and `L TIME`, each with the name and a
/// NUL after its line; `U` leaves a directory. The content of a file follows, exactly as long as was said: what it loses
/// meanwhile is zeros; a link is followed by its target and a NUL. `X` is a failure, `E` the end.
pub(super) const GIVE: &str = script!(
    r#"
bad() { printf 'X\n%s\0' "$1"; read -r m; exit 0; }
file() {
  ok=1
  [ -f /proc/$$/fd/3 ] || bad '#irregular'
  m=$(readlink /proc/$$/fd/3; echo .)
  [ "$m" = "${here%/}/$1
." ] || bad '#link'
  a=$(stat -L -c '%a %s %Y' /proc/$$/fd/3 2>&1) || bad "$a"
  printf 'F %s\n%s\0' "$a" "$1"
  a=${a#* }; a=${a% *}
  if [ "$a" != 0 ]; then
    { cat <&3 && cat /dev/zero; } 2>/dev/null | head -c "$a"
  fi
}
walk() {
  if [ -L "./$1" ]; then
    a=$(stat -c %Y "./$1" 2>&1) || bad "$a"
    m=$(readlink "./$1"; echo .)
    printf 'L %s\n%s\0%s\0' "$a" "$1" "${m%??}"
  elif [ -f "./$1" ]; then
    ok=
    file "$1" 3<"./$1"
    [ -n "$ok" ] || ! [ -e "./$1" ] || bad "$(exec 2>&1; : <"./$1")"
  elif [ -d "./$1" ]; then
    cd -P "./$1" 2>/dev/null || bad "$(ls -d "./$1/." 2>&1 >/dev/null)"
    if [ "$1" != . ]; then
      [ "$PWD" = "${here%/}/$1" ] || bad '#link'
    fi
    here=$PWD
    m=$(ls -a . 2>&1 >/dev/null) || bad "$m"
    a=$(stat -c '%a %Y' . 2>&1) || bad "$a"
    printf 'D %s\n%s\0' "$a" "$1"
    for e in * .[!.]* ..?*; do
      if [ -L "./$e" ] || [ -e "./$e" ]; then walk "$e"; fi
    done
    cd -P ..
    here=${here%/*}; here=${here:-/}
    [ "$PWD" = "$here" ] || bad '#link'
    printf 'U\n'
  fi
}
enter "$1"
here=$PWD
[ -L "./$2" ] || [ -e "./$2" ] || fail "$(stat "./$2" 2>&1 >/dev/null)"
printf '%s ok %s\n' "$n" $$
walk "$2"
printf 'E\n'
read -r m
"#
);

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write,
        os::unix::fs::{PermissionsExt, symlink},
        path::Path,
        process::{Command, Stdio},
    };

    use super::*;

    const NONCE: &str = "0123456789abcdef";
    /// What images have: busybox, Debian's, and the one of those that took bash for it.
    const SHELLS: [&[&str]; 3] = [&["busybox", "sh"], &["dash"], &["bash", "--posix"]];

    /// Runs a script in every shell that this machine has, and returns what each answered.
    fn run(script: &str, arguments: &[&str], stdin: &[u8], prepare: impl Fn(&Path)) -> Vec<Vec<u8>> {
        let here = SHELLS.iter().filter(|shell| which::which(shell[0]).is_ok());
        let answers = here.map(|shell| {
            let directory = tempfile::tempdir().unwrap();
            prepare(directory.path());
            let place = |argument: &&str| argument.replace('@', directory.path().to_str().unwrap());
            let mut child = Command::new(shell[0])
                .args(&shell[1..])
                .args(["-c", script, "agentkernel", NONCE])
                .args(arguments.iter().map(place))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(stdin).unwrap();
            let mut told = child.wait_with_output().unwrap().stdout;
            for entry in fs::read_dir(directory.path()).unwrap() {
                let entry = entry.unwrap();
                told.extend_from_slice(entry.file_name().as_encoded_bytes());
                told.extend_from_slice(
                    format!(" {:o}", entry.metadata().unwrap().permissions().mode()).as_bytes(),
                );
            }
            told
        });
        let answers = answers.collect::<Vec<_>>();
        // The number of a process differs.
        let digits = |answer: &Vec<u8>| String::from_utf8_lossy(answer).split(' ').nth(2).map(str::len);
        assert!(answers.iter().all(|answer| !answer.is_empty()), "{:?}", answers.iter().map(digits));
        answers
    }

    fn has(answers: &[Vec<u8>], wanted: &[u8]) {
        for (number, answer) in answers.iter().enumerate() {
            let is_there = answer.windows(wanted.len()).any(|window| window == wanted);
            assert!(is_there, "shell {number}: {}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn every_shell_takes_a_file() {
        let content = [b"f 750 7 ~\\0055x\n3\n\0a\xff2\n\n\n0\ne\n".as_slice()].concat();
        let answers = run(TAKE, &["@", "0"], &content, |_| {});
        has(&answers, b"ok\n-x 100750");
    }

    #[test]
    fn every_shell_leaves_nothing_of_what_is_cut() {
        for answer in run(TAKE, &["@", "0"], b"f 644 - x\n9\nabc", |_| {}) {
            assert!(answer.ends_with(b" fail #cut\n"), "{}", String::from_utf8_lossy(&answer));
        }
    }

    #[test]
    fn every_shell_replaces_a_link_and_refuses_to_go_through_one() {
        let link = |directory: &Path| symlink("/tmp", directory.join("way")).unwrap();
        has(&run(TAKE, &["@", "0"], b"f 600 - way\n1\nx0\ne\n", link), b"ok\nway 100600");
        has(&run(TAKE, &["@", "0"], b"c way\nf 600 - x\n1\nx0\ne\n", link), b"fail #link");
        has(&run(TAKE, &["@", "0"], b"l way /etc\ne\n", link), b"ok\nway 120777");
    }

    #[test]
    fn every_shell_links_what_is_below() {
        let file = |directory: &Path| fs::write(directory.join("a"), "x").unwrap();
        has(&run(TAKE, &["@", "0"], b"k\nu\nh b a\ne\n", file), b"ok\n");
        has(&run(TAKE, &["@", "0"], b"k\nu\nh b c\ne\n", file), b"fail #target");
    }

    #[test]
    fn every_shell_reads_a_file() {
        let file = |directory: &Path| fs::write(directory.join("a"), "x\0\n").unwrap();
        let end = format!(" 3\nx\0\n{NONCE} 000 00000000000000000003");
        has(&run(READ, &["@/a"], b"", file), end.as_bytes());
        has(&run(READ, &["@"], b"", file), b"fail #directory");
        has(&run(READ, &["/dev/zero"], b"", file), b"fail #irregular");
        has(&run(READ, &["@/no"], b"", file), b"No such file or directory");
    }

    #[test]
    fn every_shell_lists_makes_and_removes() {
        let file = |directory: &Path| {
            fs::write(directory.join(".a\n"), "").unwrap();
            fs::create_dir_all(directory.join("d/e")).unwrap();
            fs::write(directory.join("d/e/f"), "").unwrap();
        };
        has(&run(LIST, &["@"], b"", file), b"f.a\n\0");
        has(&run(LIST, &["@"], b"", file), b"dd\0");
        has(&run(MAKE, &["@/x y/z", "1"], b"", file), b"x y 40755");
        has(&run(MAKE, &["@/d", "0"], b"", file), b"File exists");
        has(&run(REMOVE, &["@", "d", "0"], b"", file), b"Directory not empty");
        for answer in run(REMOVE, &["@", "d", "1"], b"", file) {
            assert!(
                !answer.windows(3).any(|window| window == b"d 4"),
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
        has(&run(METADATA, &["@/d"], b"", file), b" ok 41ed ");
    }

    #[test]
    fn every_shell_gives_a_tree() {
        let tree = |directory: &Path| {
            fs::create_dir(directory.join("t")).unwrap();
            fs::write(directory.join("t/f"), "content").unwrap();
            symlink("to\n", directory.join("t/l")).unwrap();
        };
        let answers = run(GIVE, &["@", "t"], b"", tree);
        has(&answers, b"\nf\0contentL ");
        has(&answers, b"\nl\0to\n\0U\nE\n");
        has(&run(GIVE, &["@", "no"], b"", tree), b"No such file or directory");
    }
}
