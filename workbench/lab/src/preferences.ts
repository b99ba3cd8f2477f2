/** The user's settings, with the defaults of the schema until they are loaded, and where there are none. */
import type { ISettingRegistry } from "@jupyterlab/settingregistry";
import { type ISignal, Signal } from "@lumino/signaling";

export class Preferences {
  private readonly changes = new Signal<this, void>(this);

  /** Views that a run opens with, by name; all when empty. */
  views: string[] = [];
  framesPerSecond = 10;
  /** Preset that is offered first; the server's first when empty. */
  preset = "";
  showInStatusBar = true;

  get changed(): ISignal<this, void> {
    return this.changes;
  }

  /** Follow the settings of the registry from now on. */
  follow(settings: ISettingRegistry.ISettings): void {
    const read = (): void => {
      const { views, framesPerSecond, preset, showInStatusBar } = settings.composite as Record<string, any>;
      Object.assign(this, { views, framesPerSecond, preset, showInStatusBar });
      this.changes.emit();
    };
    settings.changed.connect(read);
    read();
  }
}
