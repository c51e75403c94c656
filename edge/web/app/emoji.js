/** A small choice of emoji with their names, for the picker and for `:name`. */

const LIST = `
😀 grinning|😄 smile|😁 grin|😆 laughing|😅 sweat|😂 joy|🤣 rofl|🙂 slight|😉 wink|😊 blush|😇 angel|🥰 adore
😍 hearteyes|😘 kiss|😋 yum|😜 tongue|🤪 zany|🤗 hug|🤔 think|🤨 raised|😐 neutral|😏 smirk|🙄 eyeroll|😬 grimace
😌 relieved|😴 sleep|🤤 drool|😷 mask|🤒 ill|🤯 mindblown|🥳 party|😎 cool|🤓 nerd|😕 confused|😟 worried|😮 open
😲 astonished|🥺 plead|😢 cry|😭 sob|😱 scream|😤 huff|😡 angry|🤬 swear|💀 skull|💩 poop|🤖 robot|👻 ghost
👍 thumbsup|👎 thumbsdown|👌 ok|✌️ peace|🤞 fingers|🤝 handshake|👏 clap|🙌 raisedhands|🙏 thanks|💪 muscle|👋 wave
👀 eyes|🧠 brain|❤️ heart|🧡 orangeheart|💛 yellowheart|💚 greenheart|💙 blueheart|💜 purpleheart|🖤 blackheart
💔 brokenheart|💯 hundred|💥 boom|💫 dizzy|💬 speech|💤 zzz|🔥 fire|✨ sparkles|⭐ star|🌟 glow|🎉 tada|🎊 confetti
🎁 gift|🎂 cake|🏆 trophy|🥇 first|⚽ soccer|🎮 game|🎵 music|🎨 art|🚀 rocket|✈️ plane|🚗 car|🚲 bike|🏠 house
🏢 office|⛰️ mountain|🌸 sakura|🌹 rose|🌲 tree|🍀 clover|🌈 rainbow|☀️ sun|🌙 moon|⛅ cloud|☔ rain|❄️ snow|🌊 waves
🐶 dog|🐱 cat|🐭 mouse|🐰 rabbit|🦊 fox|🐻 bear|🐼 panda|🐧 penguin|🐦 bird|🐸 frog|🐢 turtle|🐙 octopus|🐟 fish
🦋 butterfly|🐝 bee|🍎 apple|🍊 orange|🍓 strawberry|🍉 watermelon|🍞 bread|🍕 pizza|🍔 burger|🍣 sushi|🍜 ramen
🍙 riceball|🍱 bento|🍰 shortcake|🍫 chocolate|🍵 tea|☕ coffee|🍺 beer|🍷 wine|⏰ alarm|📅 calendar|📌 pin|📎 clip
✏️ pencil|📝 memo|📚 books|💡 idea|🔧 wrench|🔨 hammer|⚙️ gear|🔒 lock|🔑 key|🔔 bell|📣 megaphone|📷 camera|💻 laptop
📱 phone|🖨️ printer|💰 money|📈 up|📉 down|📦 package|✉️ letter|✅ done|☑️ check|❌ no|❓ question|❗ exclaim|⚠️ warning
🚫 forbidden|♻️ recycle|➕ plus|➖ minus|👉 right|👈 left|👆 above|👇 below|🇯🇵 japan|🏁 finish|🏃 run|💃 dance`;

/** @type {{char: string, name: string}[]} */
export const EMOJI = LIST.trim()
  .split(/[|\n]/)
  .map((each) => each.split(' '))
  .map(([char, name]) => ({ char, name }));

export const QUICK = ['👍', '❤️', '😂', '🎉', '👀', '🙏'];

/** Emoji whose name is this, begins with it, or else contains it. */
export function matching(text, most = 400) {
  const wanted = text.toLowerCase();
  const begins = EMOJI.filter(({ name }) => name.startsWith(wanted))
    .sort((a, b) => (b.name === wanted) - (a.name === wanted));
  const contains = EMOJI.filter(({ name }) => !name.startsWith(wanted) && name.includes(wanted));
  return [...begins, ...contains].slice(0, most);
}
